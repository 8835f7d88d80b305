FORM alpine
run x
FROM alpine
COPPY a b
copyy a b
Foobar
RUN
\
