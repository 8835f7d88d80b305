FROM alpine
COPY a/b.txt *.go /app/
RUN --mount=target=/ctx,source=tests true
