FROM alpine
ARG SOURCE_DATE_EPOCH
WORKDIR /x
COPY <<f /f
hi
f
COPY a /a
RUN date
