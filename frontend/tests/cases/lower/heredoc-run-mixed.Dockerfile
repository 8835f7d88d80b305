FROM alpine
RUN cat <<A > /a && cat <<-"B" > /b
one $HOME
A
	two
B
