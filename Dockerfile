# The operator's image: the program as `make bench` measures it, glibc, and the well-known certificate authorities for registries
# and stores on https. Nothing else: no shell.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make
WORKDIR /source
COPY . .
RUN cargo build --locked --release --bin pointsman

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/release/pointsman /pointsman
USER 65532:65532
ENTRYPOINT ["/pointsman"]
