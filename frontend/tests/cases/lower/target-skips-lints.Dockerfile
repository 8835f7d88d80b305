FROM alpine AS base
FROM base AS unused
CMD one
CMD two
ENV TOKEN=x
FROM base
