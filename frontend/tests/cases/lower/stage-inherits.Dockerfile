FROM alpine AS base
ARG A=1
ENV B=2 C=$A
USER app
WORKDIR /w
SHELL ["/bin/bash", "-c"]
CMD old
FROM base AS mid
ARG D=$A
ENV A=env
FROM mid
RUN echo $A $B $C $D
ENTRYPOINT run
COPY $A$B$C$D /x
