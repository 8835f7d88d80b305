# escape=`
FROM alpine
ENV A=a`
b B=`$A
ONBUILD ENV C=`$A
FROM alpine
RUN echo `
  two
