FROM alpine AS dup
RUN first
FROM alpine AS dup
RUN second
FROM dup
