FROM scratch AS empty
COPY --link a /
FROM alpine
COPY --link a b /app/
COPY --link --chown=app c /c
COPY --link --chmod=644 d /d
