ARG SOURCE_DATE_EPOCH=src
FROM scratch AS src
ADD https://example.com/file.txt /
FROM scratch
COPY --from=src /file.txt /
