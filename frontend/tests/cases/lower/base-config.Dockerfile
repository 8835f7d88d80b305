FROM me/base:1
RUN make
