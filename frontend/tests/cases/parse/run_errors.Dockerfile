FROM alpine
RUN --mount=type=bund true
RUN --mount=typ=bind true
RUN --mount=type=bind,from=$base true
RUN --mount=target true
RUN --mount=type=bind,size=1m true
RUN --mount=type=bind,mode=0755 true
RUN --mount=type=cache,sharing=share true
RUN --mount=type=secret true
RUN --mount=type=secret,source=a,id=b true
RUN --mount=type=secret,id=a,from=b true
RUN --mount=type=ssh,source=a true
RUN --mount=type=cache,ro=maybe true
RUN --mount=type=cache,mode=9 true
RUN --mount=type=cache,uid=+1 true
RUN --mount=\"a true
RUN --mount= true
RUN --mount true
RUN --network=nonne --security=x true
RUN --network=none --network=host true
RUN --device= --device=a,b true
RUN --moutn=type=bind true
RUN [1, "a"]
RUN --mount=type=cache,target=/c,env=X --mount=type=$t,required --mount=id=$x,wrong=1 true
