FROM alpine
ENV A=b
RUN one \
  && two
RUN <<EOF
body
EOF
COPY <<f /x
file $A
f
CMD ["x"]
