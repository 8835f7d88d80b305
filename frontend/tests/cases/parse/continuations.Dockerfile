FROM alpine
RUN echo a \
  # a comment inside
  && echo b \   
# another

  && echo c
COPY a \
  b \
  /dir/
