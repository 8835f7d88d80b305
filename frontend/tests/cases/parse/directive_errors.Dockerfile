# escape=\
# escape=`
# check=skip
# syntax=a b
# SYNTAX=c
# unknown=x
# escape=x
FROM alpine
