FROM alpine
COPY a
COPY
ADD ["a"]
COPY --form=x a b
COPY --link=maybe a b
COPY --link= a b
COPY --from=$x a b
COPY --chown a b
ADD --from=x a b
ADD --parents a b
COPY [1] b
