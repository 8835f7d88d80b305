FROM alpine
COPY --from=a --from=b c d
COPY --link --link=false a b
COPY --chmd=1 a b
COPY --FROM=a b c
ADD --keep-git-dir=yes a b
RUN --netwrok=none x
RUN --network x
USER --name=x y
WORKDIR --x /y
EXPOSE --udp 53
LABEL --x a=b
CMD --x y
SHELL --x ["a"]
VOLUME --x /y
ONBUILD COPY --form=x a b
