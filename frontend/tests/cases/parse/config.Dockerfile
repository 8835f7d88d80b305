FROM alpine
CMD echo hello
ENTRYPOINT ["/bin/x", "-a"]
CMD []
ENTRYPOINT
SHELL ["/bin/bash", "-c"]
EXPOSE 80/TCP 443 127.0.0.1:80:80 $port
VOLUME /a $b "/c"
VOLUME ["/a b", " /c "]
USER a:b
WORKDIR /a b
STOPSIGNAL SIGTERM
MAINTAINER somebody <a@example.com>
HEALTHCHECK --interval=1m30s --timeout=3s --start-period=0 --start-interval=500ms --retries=5 CMD curl -f http://localhost/
HEALTHCHECK CMD ["a", "b"]
HEALTHCHECK --interval=3s none
