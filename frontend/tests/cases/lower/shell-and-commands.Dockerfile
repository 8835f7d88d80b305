FROM alpine
RUN one
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN two
CMD three $X
HEALTHCHECK --start-period=5s --start-interval=1s CMD ["check"]
ENTRYPOINT four
