FROM scratch AS empty
FROM nopath AS nopath
ENV X=1
FROM haspath
COPY --from=empty a /
COPY --from=nopath b /
RUN true
