FROM alpine
ARG A=1
ENV B=2
RUN echo $A ${B} "$UNSET" \$C
CMD echo $B
ENTRYPOINT ["$B"]
HEALTHCHECK CMD echo $B
