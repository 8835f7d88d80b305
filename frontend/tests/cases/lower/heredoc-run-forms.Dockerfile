FROM alpine
ARG X=x
RUN <<A cat <<'B'
$X
A
$X
B
RUN <<-E
	echo tabs
		more
	E
RUN <<E
E
RUN 3<<E cat <&3
three
E
SHELL ["/bin/bash", "-c"]
RUN <<E
echo in bash
E
