FROM --platform=windows/amd64 mcr.example/windows/nanoserver
RUN dir
