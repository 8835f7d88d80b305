FROM alpine
RUN ["/bin/echo", "a b", "$HOME"]
