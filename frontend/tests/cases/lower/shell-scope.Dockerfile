FROM alpine AS one
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN a
HEALTHCHECK CMD b
ENTRYPOINT c
FROM one
CMD d
SHELL ["pwsh"]
CMD e
