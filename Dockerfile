# The operator's image: the program as `make bench` measures it, the libraries that it loads, and the well-known certificate
# authorities for registries and stores on https. Nothing else: no shell, no package. `make image` builds it.

# Debian 12 has glibc 2.36, which the libraries below come from.
FROM docker.io/library/rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev make
WORKDIR /source
COPY . .
# On arm64 the pages of the kernel may have up to 64 KiB, which jemalloc has to know when it is built.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
 && cargo build --locked --release --bin pointsman
# The times of the files are those of the sources' last commit, if it is given: two builds then have the same layers.
ARG SOURCE_DATE_EPOCH=0
RUN mkdir -p /image/etc \
 && cp target/release/pointsman /image/ \
 && ldd target/release/pointsman | grep -o '/[^ ]*' | xargs -I{} cp --parents --dereference {} /image/ \
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
