FROM alpine
HEALTHCHECK CMD true
HEALTHCHECK --interval=1h30m --timeout=1500ms --start-period=0 --start-interval=5s --retries=0 CMD ["curl", "-f", "a b"]
HEALTHCHECK --interval=1ms --retries=3 CMD curl "x" || exit 1
HEALTHCHECK --interval=5s NONE
healthcheck none
