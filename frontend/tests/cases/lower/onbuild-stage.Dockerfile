FROM alpine AS base
ONBUILD ARG WHO
ONBUILD COPY <<EOF /who
I am $WHO
EOF
ONBUILD WORKDIR rel
RUN base
FROM base AS child
RUN child
FROM child
RUN grandchild
