FROM alpine
COPY https://example.com/a /a
COPY https://example.com/a.git /a
COPY --chmod=9999 a /a
COPY --chmod=u+q a /a
ADD --checksum=sha256:1 a /a
ADD --checksum=nope https://example.com/a /a
COPY ${X:?missing} /a
