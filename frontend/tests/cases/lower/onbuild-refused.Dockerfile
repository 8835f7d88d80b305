FROM base
RUN never
