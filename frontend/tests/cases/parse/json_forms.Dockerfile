FROM alpine
RUN [ "a" , "b c" ]
RUN	["tab"]
RUN ["\u00e9\ud83d\ude00", "\\\"/\/"]
RUN []
RUN ['single']
RUN ["trailing",]
RUN ["closed"] more
RUN [ -f x ] && y
RUN ["unclosed"
CMD ["a", \
  "b"]
ENTRYPOINT [ ]
SHELL ["/bin/bash", "-c"]
COPY ["a b", "c d/"]
COPY ["a b" "c"]
ADD [x] [y]
VOLUME ["/a b", "/c"]
VOLUME [/a, /b]
HEALTHCHECK CMD ["curl", "-f"]
HEALTHCHECK CMD [curl]
