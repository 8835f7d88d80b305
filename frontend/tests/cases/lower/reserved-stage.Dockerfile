FROM alpine AS context
RUN true
FROM context
COPY --from=context /a /b
