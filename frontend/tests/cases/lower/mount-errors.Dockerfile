FROM alpine AS a
RUN --mount=type=bind,target=/ true
RUN --mount=type=cache,target=${MISSING:?no cache} true
RUN --mount=from=later,target=/x true
RUN --device=vendor.com/gpu=all true
FROM alpine AS later
FROM a
