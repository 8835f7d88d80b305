FROM alpine
ENV a=1 b="two words" c='$x' d=e\ f g= "h i"=j
ENV legacy the value  with $x
LABEL com.example.a="1" b=2
LABEL legacy value
# x what x is
ARG x y=1 z="a b" w=
ENV k=v\
more l=m
