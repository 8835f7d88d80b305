FROM alpine
ENV A=1 B=$A
ENV A=2 C="$A and ${B:-none}" PATH=/x:$PATH
ENV legacy some value
RUN echo $A
