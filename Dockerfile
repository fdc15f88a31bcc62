# The operator's image: a static binary and nothing else.
FROM rust:1.95-slim AS build
RUN rustup target add "$(uname -m)-unknown-linux-musl" && apt-get update && apt-get install -y --no-install-recommends musl-tools
WORKDIR /source
COPY . .
RUN cargo build --locked --release --target "$(uname -m)-unknown-linux-musl" \
 && cp "target/$(uname -m)-unknown-linux-musl/release/pointsman" /pointsman

FROM scratch
COPY --from=build /pointsman /pointsman
USER 65532:65532
ENTRYPOINT ["/pointsman"]
