FROM alpine
RUN <<EOF
echo $a
EOF
RUN <<-'ONE' cat /dev/fd/3 3<<"TWO"
	first
	ONE
second
TWO
COPY <<a.txt <<-"b.txt" plain /dir/
a $x
a.txt
		b $x
	b.txt
ADD --chown=1:2 <<f /f
f
ONBUILD RUN <<EOF
echo later
EOF
RUN ["cat", "<<EOF"]
RUN echo "<<EOF"
RUN cat <<<EOF
RUN <<EOF
#!/usr/bin/env python3
print("crlf")
EOF
