FROM alpine
COPY a /abs
COPY a rel
WORKDIR /w
COPY a rel
COPY a dir/
COPY a .
COPY a ./
COPY a ..
COPY a b c
COPY ["a b", "c d/"]
ENV D=/from/env
COPY a $D/
COPY a "$UNSET"
COPY ./a ../b /c/
COPY dir/* *.txt [ab]? /d/
