# check=error=true
FROM alpine
CMD shell
