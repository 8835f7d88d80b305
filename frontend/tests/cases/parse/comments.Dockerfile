# one
  # two, indented

# apart from what follows
#
# right above
FROM alpine
RUN echo a # not a comment
RUN echo b \
# first column \
    # indented
	# after a tab
  c \
  #
  d
# x what x is
# y what y is
ARG x \
  # z is not described in here
  y z
