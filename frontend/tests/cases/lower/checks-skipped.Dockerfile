# check=skip=JSONArgsRecommended
FROM alpine
CMD shell
# check=skip=WorkdirRelativePath
WORKDIR rel
COPY $NOPE /x
