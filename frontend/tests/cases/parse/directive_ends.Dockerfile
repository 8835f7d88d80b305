# unknown=x
# escape=`
FROM alpine
RUN a \
  b
