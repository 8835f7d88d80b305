FROM alpine
CMD ["a\tb", "\u0001", "é\u200b", "\"q\"", "\\"]
ENTRYPOINT ["\ud83d\ude00", "\u007f", "\u00a0"]
LABEL "k e y"="v a l" x='a"b' y="line\
two"
SHELL ["a b", "c"]
VOLUME ["/a b", "/c"]
USER "name:group"
STOPSIGNAL "SIGTERM"
MAINTAINER "Ann" <a@b>
ENV E="a  b" F=
ARG G="h i" J
