#!/bin/sh
# A front end for kiln in plain sh: from a few lines to an image that serves a static site.
#
#     kiln build --frontend ./frontend.sh -f site.conf -t site .
#
# README.md says what may stand in the file. The plan is in kiln's text form, and messages are taken
# apart by sed, which docs/frontends.md makes sure of. Needs sed, tr, base64 and a shell.
set -eu
LC_ALL=C.UTF-8
export LC_ALL
tab=$(printf '\t')
newline='
'

say() { printf '%s\n' "$1"; }

# A text between double quotes, as JSON and the text form of plans both have it.
quote() { printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"; }

# An error on a line of the file: LINE MESSAGE [HELP]
wrong() {
    help=
    [ $# -lt 3 ] || help=",\"help\":$(quote "$3")"
    say "{\"type\":\"diagnostic\",\"severity\":\"error\",\"message\":$(quote "$2"),\"at\":{\"line\":$1}$help}"
    failed=yes
}

give_up() {
    say '{"type":"failed"}'
    exit 0
}

# A path within the build context; sets `path`.
clean() {
    path=${2%/}
    case "/$path/" in
    */../* | //*) wrong "$1" "\`$2\` does not lie in the build context" ;;
    esac
}

read -r build
say '{"type":"hello","version":"kiln.frontend/0"}'
failed=
content=$(say "$build" | sed -n 's/^{"type":"build","version":"[^"]*","file":{"name":"[^"]*","content":"\([A-Za-z0-9+/=]*\)"}.*/\1/p')
if [ -z "$content" ]; then
    say '{"type":"diagnostic","severity":"error","message":"there is no description of a site","help":"name a file with -f; at least it says `from` and `public`"}'
    give_up
fi
target=$(say "$build" | sed -n 's/.*"target":"\([^"]*\)","args".*/\1/p')
platforms=$(say "$build" | sed -n 's/.*"platforms":\["\([^]]*\)"\],"build_platform".*/\1/p' | sed 's/","/ /g')
network=$(say "$build" | sed -n 's/.*"network":"\([a-z]*\)","add_hosts".*/\1/p')
# Patterns with brackets are more than sed can take apart.
ignore=$(say "$build" | sed -n 's/.*"context":{"directory":{"ignore":\(\[[^]]*\]\)}}.*/\1/p')
if [ -z "$ignore" ]; then
    say '{"type":"diagnostic","severity":"error","message":"the ignore file has a pattern with brackets, which this front end does not read"}'
    give_up
fi
[ -z "$target" ] || {
    say "{\"type\":\"diagnostic\",\"severity\":\"error\",\"message\":$(quote "there is no target \`$target\`: a site is one image")}"
    failed=yes
}

# Each line is a word and what belongs to it.
base='' base_line=0 public='' public_line=0 port=8080 user=65534 not_found='' \
    make='' make_image='' make_line=0 types='' line=0
file=$(say "$content" | base64 -d; echo .)
file=${file%.}
while IFS= read -r text || [ -n "$text" ]; do
    line=$((line + 1))
    text=$(printf '%s' "$text" | tr "$tab\r" '  ' | sed 's/^ *//; s/ *$//')
    word=${text%% *}
    rest=$(printf '%s' "${text#"$word"}" | sed 's/^ *//')
    case $word in
    '' | '#'*) continue ;;
    from) base=$rest base_line=$line ;;
    public)
        clean "$line" "$rest"
        public=$path public_line=$line
        ;;
    make)
        make_image=${rest%% *} make_line=$line
        make=$(printf '%s' "${rest#"$make_image"}" | sed 's/^ *//')
        [ -n "$make" ] || wrong "$line" '`make` names no command' 'as in: make node:22 npm run build'
        ;;
    port)
        port=$rest
        case $rest in
        *[!0-9]* | '' | 0* | ??????*) wrong "$line" "\`$rest\` is no port" ;;
        *) [ "$rest" -le 65535 ] || wrong "$line" "\`$rest\` is no port" ;;
        esac
        ;;
    user)
        user=$rest
        case $rest in
        *[!0-9]* | '') wrong "$line" "\`$rest\` is no number of a user" ;;
        0) wrong "$line" 'the server would run as root' 'leave `user` out for nobody' ;;
        esac
        ;;
    not-found)
        clean "$line" "$rest"
        not_found=$path
        ;;
    type)
        types="$types.${rest%% *}:${rest##* }\\n"
        case $rest in
        *' '*/*) ;;
        *) wrong "$line" "\`$rest\` is no ending and its type" 'as in: type wasm application/wasm' ;;
        esac
        ;;
    *) wrong "$line" "there is no word \`$word\`" 'from, public, make, port, user, not-found and type are there' ;;
    esac
done <<EOF
$file
EOF
[ -n "$base" ] || wrong 1 'no line says what serves the site' 'as in: from busybox:1.36'
[ -n "$public" ] || wrong 1 'no line says which directory is served' 'as in: public dist'
[ -z "$failed" ] || give_up

# What is served as it is must be there; what is made is not yet.
if [ -z "$make" ]; then
    say "{\"type\":\"list\",\"id\":1,\"path\":$(quote "$public")}"
    read -r answer
    case $answer in
    *'"error":{"code":'*)
        wrong "$public_line" "there is no directory \`$public\` in the build context"
        give_up
        ;;
    esac
fi

# Finds out what an image is, so that kiln pins it: LINE IMAGE PLATFORM; sets `reference`.
resolve() {
    say "{\"type\":\"resolve\",\"id\":2,\"image\":$(quote "$2"),\"platform\":$(quote "$3")}"
    read -r answer
    reference=$(say "$answer" | sed -n 's/^{"type":"answer","id":2,"reference":"\([^"]*\)".*/\1/p')
    [ -n "$reference" ] || {
        why=$(say "$answer" | sed -n 's/.*"message":"\(.*\)"}}$/\1/p')
        say "{\"type\":\"diagnostic\",\"severity\":\"error\",\"message\":\"$why\",\"at\":{\"line\":$1}}"
        give_up
    }
}

plan='' display='' results='' number=0
add() { plan="$plan$1$newline"; }
# What people see of a node: LABEL NAME STAGE LINE
show() {
    display="$display${display:+,}\"$1\":{\"name\":$(quote "$2"),\"stage\":\"$3\",\"line\":$4}"
}

settings=
[ -z "$not_found" ] || settings="E404:/srv/$not_found\\n"
settings="$settings$types"
add "%context = local context exclude=$ignore"
for platform in $platforms; do
    number=$((number + 1))
    from=%context place=/$public
    if [ -n "$make" ]; then
        resolve "$make_line" "$make_image" "$platform"
        add "%maker$number = image $(quote "$reference") $platform"
        show "maker$number" "image $make_image" make "$make_line"
        limit=
        [ "$network" = default ] || limit=" network=$network"
        add "%made$number = exec %maker$number [\"/bin/sh\", \"-c\", $(quote "$make")] platform=$platform cwd=/src$limit { bind %context -> /src out=1 }"
        show "made$number" "make $make" make "$make_line"
        from=%made$number.1
    fi
    resolve "$base_line" "$base" "$platform"
    add "%base$number = image $(quote "$reference") $platform"
    show "base$number" "from $base" site "$base_line"
    add "%site$number = file %base$number { copy $from:$(quote "$place") -> /srv dir-contents create-dest; mkfile /etc/httpd.conf mode=644 data=\"$settings\" }"
    show "site$number" "public $public" site "$public_line"
    name=
    case $platforms in *' '*) name="$platform " ;; esac
    results="${results}result $name%site$number { cmd=[\"busybox\", \"httpd\", \"-f\", \"-p\", \"$port\", \"-h\", \"/srv\", \"-c\", \"/etc/httpd.conf\"] env=[\"PATH=/bin:/usr/bin:/sbin:/usr/sbin\"] cwd=/srv user=$user expose=[\"$port/tcp\"] }$newline"
done
# The plan is a text within a text.
nested=$(printf '%s' "$plan$results" | sed 's/\\/\\\\/g; s/"/\\"/g' | sed -e ':all' -e '$!{N;b all' -e '}' -e 's/\n/\\n/g')
say "{\"type\":\"plan\",\"plan\":\"$nested\",\"display\":{$display}}"
