FROM me/onbuild
