FROM alpine AS a
RUN --mount=type=bind,target=/ true
RUN --mount=type=cache,target=${MISSING:?no-cache} true
RUN --mount=from=later,target=/x true
RUN --device=gpu,required true
RUN --device=gpu true
RUN --mount=type=bind,target=/x/../../y true
FROM alpine AS later
FROM a
