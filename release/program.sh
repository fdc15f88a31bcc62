#!/usr/bin/env bash
# Builds the operator's program as the image has it, in target/release/pointsman.
# Absent: the programs of the plugin, which run on people's machines; release/build.sh makes them.
#
# It is linked statically: the image needs nothing else, and libraries of the system would be resident as well. Its names are resolved
# by "files dns", which the image's /etc/nsswitch.conf says; other modules of glibc would need glibc's own libraries.
#
# Needs Rust, a C compiler with make, and glibc's static library (Debian: libc6-dev; Fedora: glibc-static).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# On arm64 the pages of the kernel may have up to 64 KiB, which jemalloc has to know when it is built.
[[ $(uname -m) != aarch64 ]] || export JEMALLOC_SYS_WITH_LG_PAGE=16
exec "${CARGO:-cargo}" rustc --locked --release --bin pointsman -- \
    -C target-feature=+crt-static -C link-arg=-Wl,-T,release/layout.ld
