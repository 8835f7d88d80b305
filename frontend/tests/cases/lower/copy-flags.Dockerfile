FROM alpine
ARG WHO=app
COPY --chown=${WHO}:staff --chmod=u=rwX,go=rX a /a
COPY --chown=10:20 --chmod=0644 b /b
COPY --exclude=*.md --exclude=**/test c /c/
COPY --parents x/./y/*.txt z/file /d/
COPY --chown=app:5 d /e
