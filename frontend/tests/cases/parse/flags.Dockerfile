FROM alpine
COPY --chown="a b" --chmod='0600' --exclude=a\ b a b
COPY --link=TRUE --parents=False a b
COPY --from= --chown= a b
COPY -- --from=x /y
COPY - a b
COPY a --from=x b
RUN --mount=type=tmpfs,target=/a --mount=type=tmpfs,target=/b --network=NONE -- --mount=x
RUN --  --version
RUN --mount="type=bind,\"target=/a,b\"" true
HEALTHCHECK --retries= --interval=0 CMD x
