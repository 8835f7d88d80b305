# escape=`
FROM mcr.example/windows
RUN dir `
  C:\\ 
COPY C:\a `
  C:\b\

ENV x=a` b y="`"q`""
