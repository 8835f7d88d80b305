FROM alpine
COPY node_modules/x app.log Dockerfile /app/
ADD deep/app.log /app/
COPY . /
