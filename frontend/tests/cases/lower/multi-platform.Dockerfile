FROM --platform=$BUILDPLATFORM golang AS build
COPY . /src
RUN go vet
ARG TARGETARCH
RUN go build
FROM alpine
COPY --from=build /x /x
