FROM alpine
WORKDIR /app
COPY go.mod go.sum ./
COPY src/ /src
COPY . .
COPY ["c d.txt", "/e f/"]
