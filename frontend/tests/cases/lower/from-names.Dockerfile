FROM alpine AS Base
RUN one
FROM Base AS two
FROM base AS three
RUN three
