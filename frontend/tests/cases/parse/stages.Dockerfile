# syntax=docker/dockerfile:1.7
# escape=\
# check=skip=UndefinedVar;error=true
ARG VERSION=3.20 VARIANT

# base what all stages share
FROM --platform=$BUILDPLATFORM alpine:${VERSION} AS base
# unrelated

FROM base
# check=skip=LegacyKeyValueFormat
ENV a b
from scratch as last
