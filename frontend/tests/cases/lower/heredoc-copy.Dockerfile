FROM alpine
ARG NAME=world
COPY <<hello.txt <<"raw.txt" <<-tabs.txt /etc/motd.d/
Hello ${NAME} "quoted" \$literal
hello.txt
Hello ${NAME}
raw.txt
	indented
tabs.txt
