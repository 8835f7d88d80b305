FROM alpine
ONBUILD RUN later
ONBUILD COPY . /src
