FROM alpine
RUN
RUN []
RUN ["a", "b c", "\u00e9"]
RUN ['a']
RUN --network=none --security=insecure --mount=type=cache,target=/c,sharing=locked,id=$id,mode=0755,uid=1,gid=$gid make
RUN --mount=target=/src,ro=false --mount=type=bind,from=base,source=/a,dst=/b,rw true
RUN --mount=type=tmpfs,size=64m,target=/t --mount=type=secret,id=s,env=TOKEN,required --mount=type=ssh,mode=0600 true
RUN --mount='type=bind,"target=/a,b"' \
    --device=vendor.example/gpu=0,required --device=name=$d,required=false \
    nvidia-smi
RUN -- --not-a-flag
