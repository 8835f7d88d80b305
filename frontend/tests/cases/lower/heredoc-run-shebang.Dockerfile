FROM alpine
RUN <<-script
	#!/usr/bin/env python3
	print("hello")
script
