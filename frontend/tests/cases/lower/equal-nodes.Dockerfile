FROM alpine AS a
RUN same
FROM alpine AS b
RUN same
FROM scratch
COPY --from=a /x /a
COPY --from=b /x /b
