FROM base AS other
LABEL only=other
FROM base
LABEL b=2 "$K"=x quoted="a \"b\" c" multi="one\
two" legacy=
LABEL l e g
LABEL "$UNSET"=x
