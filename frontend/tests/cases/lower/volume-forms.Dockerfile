FROM alpine
ENV DIR=/env
VOLUME $DIR/a ${DIR}/b
VOLUME ["$DIR/c", " /trimmed "]
VOLUME '/quoted'
