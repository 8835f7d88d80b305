ARG REPO=docker.io/library
ARG TAG
FROM ${REPO}/alpine:${TAG:-3.20} AS a
FROM $REPOO AS b
FROM ${REPO}/alpine:$TAG AS c
FROM a
