FROM alpine
ENV
ENV a
LABEL
LABEL a
ENV a=1 b
ENV =x
ARG
ARG =x
ARG --flag x
LABEL a=b "c
