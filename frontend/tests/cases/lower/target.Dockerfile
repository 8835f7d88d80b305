FROM alpine AS base
RUN base
FROM base AS test
ENV PASSWORD=x
RUN test
FROM base AS release
RUN release
