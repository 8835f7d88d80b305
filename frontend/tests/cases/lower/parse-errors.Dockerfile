FROM alpine
RUNN make
COPY one
