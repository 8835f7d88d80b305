FROM me/base
RUN true
