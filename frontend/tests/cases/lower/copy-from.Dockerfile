FROM golang AS Build
RUN go build -o /out/app
FROM scratch
COPY --from=build /out/app /app
COPY --from=0 /etc/ssl /etc/ssl
COPY --from=busybox:musl /bin/busybox /bin/
COPY --from=scratch / /nothing
