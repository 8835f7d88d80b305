FROM alpine AS base
RUN base
FROM base AS Test
WORKDIR /t
RUN test
COPY . .
