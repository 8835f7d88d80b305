FROM alpine AS one
COPY --from=two /a /a
FROM alpine AS two
RUN --mount=from=three,target=/m true
FROM one AS three
