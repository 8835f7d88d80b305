FROM alpine
ENV V=value
WORKDIR /w
COPY <<plain <<"quoted" <<-tabs dir/
a $V \$V ${V%e}
plain
b $V
quoted
	c $V
	tabs
COPY --chmod=0600 --chown=1:2 --link <<a.sh /bin/a
#!/bin/sh
a.sh
COPY ["<<json", "/j"]
ADD local <<late /both/
late text
late
