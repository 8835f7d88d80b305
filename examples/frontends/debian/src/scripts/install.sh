# Installs packages with dpkg: batches, ended by --, each unpacked and then configured.
# dpkg by its path: a shell that is a busybox would take its own.
set -eu
options=$1
shift
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
if [ "$options" = first ]; then
    # What was unpacked is not installed yet: preinst scripts need people, and some an awk.
    for file in passwd group; do
        [ -e "/etc/$file" ] || cp "/usr/share/base-passwd/$file.master" "/etc/$file"
    done
    [ -e /usr/bin/awk ] || ! [ -e /usr/bin/mawk ] || ln -s mawk /usr/bin/awk
    mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers
    touch /var/lib/dpkg/status /var/lib/dpkg/available
    force=--force-depends
else
    force=
fi
if [ -e /packages/.minimize ]; then
    cp /packages/.minimize /etc/dpkg/dpkg.cfg.d/kiln-minimize
    rm -rf /usr/share/doc/* /usr/share/man/* /usr/share/info/* /usr/share/locale/* \
        /usr/share/lintian /usr/share/bug
fi
batch=
for package; do
    if [ "$package" != -- ]; then
        batch="$batch /packages/$package"
        continue
    fi
    # shellcheck disable=SC2086 # names of packages have no blanks
    /usr/bin/dpkg --force-unsafe-io $force --unpack $batch
    /usr/bin/dpkg --force-unsafe-io $force --configure --pending
    batch=
done
# Forced or not, in the end everything has to be in order.
wrong=$(/usr/bin/dpkg --audit)
if [ -n "$wrong" ]; then
    printf '%s\n' "$wrong" >&2
    exit 1
fi
# What differs from one time to the next, or is of no use later.
rm -f /usr/sbin/policy-rc.d /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log \
    /var/cache/ldconfig/aux-cache /var/lib/dpkg/*-old /var/cache/debconf/*-old \
    /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
rm -rf /var/log/apt /tmp/* /var/tmp/*
find /var/log -type f -exec truncate -s 0 {} +
[ ! -e /etc/machine-id ] || : >/etc/machine-id
