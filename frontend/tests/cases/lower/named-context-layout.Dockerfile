FROM base AS build
RUN make
FROM docker.io/library/alpine:3
COPY --from=build /out /out
COPY --from=tools bin /bin
