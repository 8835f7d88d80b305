FROM alpine AS one
COPY --from=two /a /a
COPY --from=one /a /a
FROM alpine AS two
FROM one
