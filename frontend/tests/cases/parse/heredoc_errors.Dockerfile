FROM alpine
COPY a <<EOF
EOF
RUNN <<EOF
this is no instruction
EOF
RUN <<EOF
never ends
