FROM alpine
RUN --mount=type=secret,id=token --mount=type=secret,id=key,target=/k,mode=0440,uid=1,required \
    --mount=type=secret,id=aws,env=AWS_TOKEN --mount=type=secret,target=/etc/netrc,env=NETRC \
    --mount=type=ssh --mount=type=ssh,id=work,required=true git clone x
