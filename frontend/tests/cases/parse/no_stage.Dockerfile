ARG a
RUN x
COPY a b
