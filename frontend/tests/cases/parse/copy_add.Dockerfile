FROM alpine
COPY a b
COPY ["a b", "c"]
COPY --from=0 --chown=a:b --chmod=0644 --link --parents --exclude=*.o --exclude="*.a b" a /x/
COPY --link=false --parents=TRUE a b
ADD --keep-git-dir=true --checksum=sha256:00 --unpack=false --link https://example.com/a.tar /a
ADD --chown= a b
