# Adds lines to the lists of users and groups: FILE LINE, or `member GROUP USER`, by threes.
set -eu
fail() {
    echo "$1" >&2
    exit 1
}
while [ $# -gt 0 ]; do
    kind=$1 first=$2 second=$3
    shift 3
    case $kind in
    passwd | group)
        name=${second%%:*}
        number=$first
        ! grep -q "^$name:" "/etc/$kind" || fail "\`$name\` is in /etc/$kind already"
        ! grep -q "^[^:]*:[^:]*:$number:" "/etc/$kind" || fail "the number $number is in /etc/$kind already"
        printf '%s\n' "$second" >>"/etc/$kind"
        ;;
    shadow | gshadow)
        [ ! -e "/etc/$kind" ] || printf '%s\n' "$second" >>"/etc/$kind"
        ;;
    member)
        grep -q "^$first:" /etc/group || fail "there is no group \`$first\` for \`$second\`"
        for file in group gshadow; do
            [ -e "/etc/$file" ] || continue
            sed -i "/^$first:/{s/:\$/:$second/;t;s/\$/,$second/}" "/etc/$file"
        done
        ;;
    esac
done
