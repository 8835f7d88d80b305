FROM a AS Base
FROM a as x-1_2.3
FROM scratch aS z
FROM base
FROM Base
FROM A
FROM a AS context
FROM a AS z
