FROM
FROM a b
FROM a AS
FROM a AS b c
FROM a IN b
FROM a AS 1b
FROM a AS b$c
FROM --platfrom=x a
FROM --platform a
RUN lost
