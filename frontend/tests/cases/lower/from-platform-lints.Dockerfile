FROM --platform=linux/arm64 alpine AS base
FROM --platform=$TARGETPLATFORM alpine AS other
FROM --platform=linux/arm64 alpine AS build-arm64
FROM --platform=windows/amd64 alpine AS win
FROM --platform=$NOPE alpine
FROM --platform=///// alpine
