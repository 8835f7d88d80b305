FROM alpne AS a
FROM me/private
COPY --from=a /x /x
COPY --from=me/gone /y /y
