FROM base
WORKDIR sub
COPY a .
RUN pwd
