# Of an ARG and an ENV with one name, the later one counts; the image keeps the ENV.
FROM alpine AS base
ENV A=env B=env
ARG A=arg
RUN echo $A $B
ARG B=arg
ENV B=again
RUN echo $A $B

# A base's arguments come with their values, hidden by its environment and out of the history.
FROM base
ARG C=c
RUN echo $A $B $C
ARG A
RUN echo $A
LABEL a=$A
