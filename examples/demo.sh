#!/bin/sh
# The tour behind `make demo`: everything in a store of its own under target/, wiped first.
set -eu
cd "$(dirname "$0")/.."

work=$PWD/target/demo
KILN_ROOT=$work/store
export KILN_ROOT

say() { printf '\n\033[1m== %s\033[0m\n' "$1"; }
show() { printf '$ %s\n' "$*"; "$@"; }

say "Building kiln"
cargo build --locked --release --bin kiln
PATH=$PWD/target/release:$PATH
export PATH

rm -rf "$work"
mkdir -p "$work"
cp -R examples/demo "$work/context"
seq 1 1200 > "$work/context/big.txt"

say "A base image from the tar of a root file system: no registry needed"
printf '$ examples/base.sh | kiln import - demo/base\n'
examples/base.sh | kiln import - demo/base

say "The plan, before anything runs"
show kiln plan "$work/context"

say "The first build: two stages at the same time"
show kiln build --progress plain -t demo/app "$work/context"

say "The same again"
show kiln build --progress plain -t demo/app "$work/context"

say "One file edited, and built again"
printf '$ printf "on the same line" >> big.txt\n'
printf 'on the same line' >> "$work/context/big.txt"
show kiln build --progress plain -t demo/app "$work/context"

say "The image, run"
show kiln run demo/app

say "The three-line redis file from docker.io"
# A registry answers this without credentials, with 200 or 401: that it answers is all we ask.
if command -v timeout >/dev/null && timeout 3 sh -c 'exec 3<>/dev/tcp/registry-1.docker.io/443' 2>/dev/null \
    || { command -v bash >/dev/null && timeout 3 bash -c 'exec 3<>/dev/tcp/registry-1.docker.io/443' 2>/dev/null; }; then
    show kiln build --progress plain -t leon/redis:latest examples/redis
    show kiln run leon/redis redis-server --version
else
    echo "skipped: docker.io did not answer within 3 s"
fi
