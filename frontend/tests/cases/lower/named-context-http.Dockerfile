FROM alpine
COPY --from=tarball / /
