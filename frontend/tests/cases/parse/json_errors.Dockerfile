FROM alpine
RUN ["a", null]
COPY ["a", ["b"], "c"]
VOLUME ["/a", true]
SHELL ["a", 1]
HEALTHCHECK CMD [2]
ADD [{}, "b"]
