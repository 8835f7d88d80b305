FROM me/onbuild
RUN own
