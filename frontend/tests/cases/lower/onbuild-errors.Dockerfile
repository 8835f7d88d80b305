FROM me/onbuild AS first
FROM me/other
