# The operator's image: a static binary, and the well-known certificate authorities for registries and stores on https.
FROM rust:1.95-slim AS build
RUN rustup target add "$(uname -m)-unknown-linux-musl" && apt-get update && apt-get install -y --no-install-recommends musl-tools ca-certificates
WORKDIR /source
COPY . .
RUN cargo build --locked --release --target "$(uname -m)-unknown-linux-musl" \
 && cp "target/$(uname -m)-unknown-linux-musl/release/pointsman" /pointsman

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /pointsman /pointsman
USER 65532:65532
ENTRYPOINT ["/pointsman"]
