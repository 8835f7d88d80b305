FROM alpine
RUN --network=none ./offline
RUN --network=host ./host
RUN --network=default ./default
RUN --security=insecure ./privileged
