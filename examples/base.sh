#!/bin/sh
# Writes the tar of a small root file system to standard output: the same bytes for the same programs.
#
#   examples/base.sh | kiln import - demo/base
#
# What is in it: a static busybox (the host's, else Debian's busybox-static package, unpacked and not
# installed), else the host's sh and coreutils with the libraries that they load.
set -eu
umask 022
LC_ALL=C
export LC_ALL

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
root=$work/root
mkdir -p "$root/bin" "$root/dev" "$root/etc" "$root/proc" "$root/root" "$root/sys" "$root/tmp" "$root/usr/bin" "$root/var"
chmod 1777 "$root/tmp"
chmod 0700 "$root/root"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$root/etc/group"

say() { printf 'base.sh: %s\n' "$1" >&2; }

# A busybox that needs no library: it must start in an empty root, so a dynamic one does not do.
static() {
    [ -x "$1" ] && ! (ldd "$1" 2>&1 | grep -q '=>')
}

busybox=
for candidate in $(command -v busybox || true) /bin/busybox /usr/bin/busybox; do
    if static "$candidate"; then busybox=$candidate; break; fi
done
if [ -z "$busybox" ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    if (cd "$work" && apt-get download -qq busybox-static >/dev/null 2>&1 && dpkg-deb -x busybox-static_*.deb deb); then
        for candidate in "$work/deb/bin/busybox" "$work/deb/usr/bin/busybox"; do
            if [ -x "$candidate" ]; then busybox=$candidate; break; fi
        done
    fi
fi

if [ -n "$busybox" ]; then
    say "using $busybox"
    cp "$busybox" "$root/bin/busybox"
    chmod 0755 "$root/bin/busybox"
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
else
    say "no static busybox here: using the host's sh and coreutils"
    copy() {
        [ -e "$root$1" ] && return
        mkdir -p "$root$(dirname "$1")"
        cp -L "$1" "$root$1"
    }
    for name in sh cat cp mv rm ls ln mkdir rmdir wc sort uniq head tail tr cut seq sleep true false echo \
        printf env id chmod chown touch test date grep sed stat uname sha256sum; do
        program=$(command -v "$name") || continue
        case $program in /*) ;; *) continue ;; esac
        [ -e "$root/bin/$name" ] || { cp -L "$program" "$root/bin/$name"; chmod 0755 "$root/bin/$name"; }
        for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ )]*'); do copy "$library"; done
    done
fi

tar --create --directory "$root" --sort=name --format=posix \
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
    --owner=0 --group=0 --numeric-owner --mtime=@0 .
