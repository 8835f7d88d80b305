#   Syntax  =  docker.io/docker/dockerfile:1-labs  
#ESCAPE=`
#	check =  skip=JSONArgsRecommended
FROM alpine
RUN a `  
  b
CMD c:\d
