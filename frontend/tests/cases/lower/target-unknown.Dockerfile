FROM alpine AS base
FROM base AS release
