FROM alpine
RUN --mount=type=cache,target=/c/./d/ true
