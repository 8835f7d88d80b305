FROM alpine
RUN <<A <<'B' 3<<-"C" cat
a
A
$b
B
		c
	C
RUN 0<<E cat

E
RUN <<E
# no comment
escaped \
	kept
 E
EE
E
RUN <<E'O'F x
y
EOF
RUN << EOF
RUN echo $((1<<2))
RUN cat << 'E'
CMD <<EOF
COPY <<a\ b <<"c d" /
1
a b
2
c d
ADD <<-E /x
	y
E
RUN <<-E
	body
  E
	E
COPY ["<<E", "/x"]
onbuild copy <<E /x
later
E
RUN <<E \
  cat
body
E
