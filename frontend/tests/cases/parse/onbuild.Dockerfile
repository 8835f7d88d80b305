FROM alpine
ONBUILD RUN make  # kept
onbuild COPY --from=x a b
ONBUILD ENV a=1
ONBUILD COPY a
ONBUILD FOO bar
ONBUILD RUN --mount=type=bund x
