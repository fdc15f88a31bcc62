# The operator's image: the program as `make bench` measures it, linked statically, and the well-known certificate authorities for
# registries and stores on https. Nothing else: no shell, no library, no package. `make image` builds it.

FROM docker.io/library/rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev make
WORKDIR /source
COPY . .
RUN release/program.sh
# The times of the files are those of the sources' last commit, if it is given: two builds then have the same layers.
ARG SOURCE_DATE_EPOCH=0
RUN mkdir -p /image/etc \
 && cp target/release/pointsman /image/ \
 && cp --parents --dereference /etc/ssl/certs/ca-certificates.crt /image/ \
 && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
 && find /image -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM scratch
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="pointsman" \
      org.opencontainers.image.description="Moves of a model-registry alias become deployments, and moves back become rollbacks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /image/ /
USER 65532:65532
ENTRYPOINT ["/pointsman"]
