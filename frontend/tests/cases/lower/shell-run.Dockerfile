FROM alpine
RUN make -C /app
