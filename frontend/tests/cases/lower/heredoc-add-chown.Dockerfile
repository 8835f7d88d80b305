FROM alpine
ADD --chown=1000 --chmod=755 <<run.sh local.txt /opt/
#!/bin/sh
run.sh
