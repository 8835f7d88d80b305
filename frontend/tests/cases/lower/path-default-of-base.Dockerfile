FROM nopath
ENV X=1
