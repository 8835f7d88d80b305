FROM assets AS files
RUN ls
FROM scratch
COPY --from=files a /a
COPY --from=assets b /b
