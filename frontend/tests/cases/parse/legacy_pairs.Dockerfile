FROM alpine
ENV a  b   c
ENV	a	b=c
ENV a b="c" d
LABEL a b c
ENV a= b
ENV a="b
ENV a=b\
LABEL "a b"=c 'd e'=f g\ h=i
