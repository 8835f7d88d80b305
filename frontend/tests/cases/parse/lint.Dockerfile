ARG TOKEN
from alpine AS Base
MAINTAINER me
RUN \

  true
FROM base as base
env k v
ENV API_KEY=x PUBLIC_KEY=y
CMD a
CMD b
HEALTHCHECK NONE
HEALTHCHECK NONE
FROM scratch AS scratch
EXPOSE 80/UDP 1:2
Label a=b
