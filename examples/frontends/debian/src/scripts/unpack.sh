# Unpacks packages with nothing but busybox, so that their own dpkg can install them once more.
set -eu
set -o pipefail
b=/bin/busybox
for link; do
    $b mkdir -p "/target/usr/$link"
    $b ln -s "usr/$link" "/target/$link"
done
for package in /packages/*.deb; do
    member=$($b ar t "$package" | $b grep '^data\.tar')
    case $member in
    data.tar.xz) unpack='xz -dc' ;;
    data.tar.gz) unpack='gzip -dc' ;;
    data.tar) unpack=cat ;;
    *)
        echo "${package##*/}: $member cannot be unpacked here" >&2
        exit 1
        ;;
    esac
    # shellcheck disable=SC2086 # a program and its options
    $b ar p "$package" "$member" | $b $unpack | $b tar -x -C /target
done
