FROM alpine
RUN <<EOF
apk add make
make -C /app
EOF
