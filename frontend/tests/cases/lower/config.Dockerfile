FROM alpine
LABEL a=1 "b c"="d e" a=2
EXPOSE 443 80 8000-8002/udp
VOLUME /data [not-json
VOLUME ["/logs", "/data"]
USER app:staff
STOPSIGNAL SIGQUIT
MAINTAINER Ann <ann@example.com>
HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl -f localhost
ENTRYPOINT ["/app", "--x=\"y\""]
CMD ["serve"]
WORKDIR /
WORKDIR rel
WORKDIR /abs/../clean/
