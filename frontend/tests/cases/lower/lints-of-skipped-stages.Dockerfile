ARG TAG=3
FROM --platform=linux/amd64 alpine:${TAGG:-3} AS unused
WORKDIR rel
ENV TOKEN=x
FROM alpine
