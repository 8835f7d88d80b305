# syntax=docker/dockerfile:1
# check=skip=none
FROM alpine
RUN a \
  # a comment
  && b
RUN <<EOF
echo one
	echo two
EOF
ENV a=b \
  c=d
