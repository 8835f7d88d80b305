FROM Alpine AS a
FROM alpine:: AS b
FROM b
COPY --from=UPPER/x /a /b
