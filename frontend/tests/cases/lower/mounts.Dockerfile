FROM golang AS tools
FROM alpine
WORKDIR /src
ARG DIR=pkg
RUN --mount=type=cache,target=/root/.cache --mount=type=bind,target=.,source=${DIR} \
    --mount=from=tools,source=/usr/local/go,target=/go,rw --mount=type=tmpfs,target=/tmp,size=64m \
    --mount=from=busybox,target=/bb --mount=type=cache,id=own,sharing=locked,target=rel,uid=5,mode=700 \
    make
