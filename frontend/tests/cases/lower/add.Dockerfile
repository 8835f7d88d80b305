FROM alpine
ADD rootfs.tar.gz /
ADD --unpack=false archive.tar /opt/
ADD https://example.com/files/tool.bin?x=1 https://example.com/ /opt/
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d --unpack https://example.com/src.tgz /src
ADD --keep-git-dir=true https://github.com/me/app.git#v1:docs /app
ADD git@github.com:me/lib.git?tag=v2&submodules=false /lib
