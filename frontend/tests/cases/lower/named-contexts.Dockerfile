FROM alpine AS base
RUN replaced
FROM base AS build
COPY --from=assets img/logo.png /logo.png
COPY --from=src lib /lib
RUN --mount=from=assets,source=css,target=/css true
FROM debian:12
COPY --from=build / /out
COPY --from=repo / /repo
