FROM me/onbuild
CMD ["x"]
