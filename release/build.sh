#!/usr/bin/env bash
# Makes the files of a release in dist/: binaries for two architectures, the chart, install.yaml, a Kustomize base, a krew manifest,
# a bill of materials and checksums. `make release` runs it.
# Absent: uploads, signatures and the image, which needs a container engine (make image).
#
# Needs git, jq and Helm; to build the programs also Rust with rustup, Python with venv, a C compiler with binutils, 1 GB of disk in
# POINTSMAN_CACHE for the compiler, and the package indexes of Python and Rust. Lists what is missing before it begins.
#
# RELEASE_URL   where the files will be; the krew manifest names it
# BINARIES      a folder with finished programs linux_amd64/pointsman, linux_arm64/pointsman; without it they are built
# IMAGE         the image's name without its tag, for install.yaml
# HELM          the command of Helm
# DIST          the folder of the files
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RELEASE_URL=${RELEASE_URL:-https://registry.example/pointsman/releases}
IMAGE=${IMAGE:-pointsman}
read -ra helm <<< "${HELM:-helm}"
DIST=${DIST:-dist}
CACHE=${POINTSMAN_CACHE:-$HOME/.cache/pointsman}
# A compiler for both architectures and for an old glibc; both are Python packages.
ZIG=0.17.1
ZIGBUILD=0.24.1
# Programs run with this glibc and newer ones (RHEL 8, Debian 10, Ubuntu 18.10).
GLIBC=2.28

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
chart=$(sed -n 's/^version: //p' charts/pointsman/Chart.yaml)
app=$(sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/pointsman/Chart.yaml)
if [[ $version != "$chart" || $version != "$app" ]]; then
    echo "the versions differ: Cargo.toml $version, charts/pointsman/Chart.yaml $chart with appVersion $app; make them one" >&2
    exit 1
fi
epoch=$(git log -1 --format=%ct 2>/dev/null || echo 0)

say() { echo "release: $*" >&2; }

# Fails with a list of all programs that are missing.
prerequisites() {
    local missing=()
    need() { command -v "$1" >/dev/null || missing+=("$1 ($2)"); }
    need git 'Debian: apt-get install git'
    need jq 'Debian: apt-get install jq'
    need "${helm[0]}" 'Helm 3.14 or newer; HELM names its command, and make release brings its own'
    need cargo 'Rust 1.89 or newer with rustup'
    if [[ -z ${BINARIES:-} ]]; then
        need rustup 'the installer of Rust, for its standard libraries of both architectures'
        need cc 'Debian: apt-get install build-essential'
        need readelf 'Debian: apt-get install binutils'
        python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=('python3 with venv (Debian: apt-get install python3 python3-venv)')
    fi
    ((${#missing[@]})) || return 0
    echo "missing programs, install them and run it again:" >&2
    printf -- '- %s\n' "${missing[@]}" >&2
    exit 1
}

# The compiler, in a folder of the cache.
compiler() {
    [[ ! -x $1/bin/cargo-zigbuild ]] || return 0
    say "installing the compiler into $1"
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet "ziglang==$ZIG" "cargo-zigbuild==$ZIGBUILD" && return
    echo "pip could not install ziglang $ZIG and cargo-zigbuild $ZIGBUILD: see that it reaches a package index (PIP_INDEX_URL, HTTPS_PROXY)" >&2
    exit 1
}

# Fails if a program needs a newer glibc than it is built for.
fits_glibc() {
    local newest
    newest=$(readelf --version-info --wide "$1" | grep -o 'GLIBC_[A-Z0-9_.]*' | sort --unique --version-sort | tail -1)
    # Not a number: GLIBC_ABI_DT_RELR, which glibc has since 2.36.
    if [[ $(printf '%s\n' "$newest" "GLIBC_$GLIBC" | sort --version-sort | tail -1) != "GLIBC_$GLIBC" ]]; then
        echo "$1 needs $newest of glibc, and has to run with $GLIBC: build it without options that need a newer one" >&2
        exit 1
    fi
    say "$1 needs $newest"
}

# Archives whose bytes depend on the content alone.
archive() { tar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --directory "$2" --create . | gzip --no-name > "$1"; }

build() {
    local tools="$CACHE/release-$ZIG-$ZIGBUILD" built=$1
    compiler "$tools"
    for target in x86_64 aarch64; do
        local triple=$target-unknown-linux-gnu
        rustup --quiet target add "$triple"
        say "building for $triple, which takes some minutes"
        # Pages of up to 64 KiB, as kernels for arm64 may have, must be known to jemalloc when it is built.
        local page=12
        [[ $target != aarch64 ]] || page=16
        # No flags instead of those of .cargo/config.toml: packed relocations need glibc 2.36, and this linker refuses the option.
        PATH="$tools/bin:$PATH" JEMALLOC_SYS_WITH_LG_PAGE=$page CARGO_ENCODED_RUSTFLAGS='' \
            cargo zigbuild --locked --release --bin pointsman --target "$triple.$GLIBC"
        local name=linux_amd64
        [[ $target != aarch64 ]] || name=linux_arm64
        install -D "${CARGO_TARGET_DIR:-target}/$triple/release/pointsman" "$built/$name/pointsman"
        fits_glibc "$built/$name/pointsman"
    done
}

prerequisites
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$DIST"
mkdir -p "$DIST"
if [[ -z ${BINARIES:-} ]]; then
    BINARIES=$work/binaries
    build "$BINARIES"
fi

for folder in "$BINARIES"/*/; do
    platform=$(basename "$folder")
    mkdir -p "$work/$platform"
    install "$folder/pointsman" "$work/$platform/kubectl-pointsman"
    cp LICENSE "$work/$platform/"
    archive "$DIST/kubectl-pointsman_${version}_$platform.tar.gz" "$work/$platform"
    say "the program for $platform"
done

"${helm[@]}" package charts/pointsman --destination "$DIST" >/dev/null
say "the chart"

{
    printf 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: pointsman\n'
    # kubectl would run the hook of an uninstallation at once.
    "${helm[@]}" template pointsman charts/pointsman --no-hooks --namespace pointsman --set "image.repository=$IMAGE"
} > "$DIST/install.yaml"
mkdir -p "$work/kustomize"
cp "$DIST/install.yaml" "$work/kustomize/"
printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- install.yaml\n' > "$work/kustomize/kustomization.yaml"
archive "$DIST/pointsman-kustomize_$version.tar.gz" "$work/kustomize"
say "install.yaml and the Kustomize base"

# The bill of materials has what the program is compiled from: no tools of tests, no build scripts.
packages=$(cargo tree --locked --package pointsman --edges normal --prefix none --target x86_64-unknown-linux-gnu --format '{p}' \
    | awk '{ print $1 "@" substr($2, 2) }' | sort -u | jq --raw-input . | jq --slurp .)
cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu \
    | jq --argjson packages "$packages" --arg time "$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" -f release/bill-of-materials.jq \
    > "$DIST/pointsman_$version.cdx.json"
say "the bill of materials (CycloneDX)"

release/krew.sh "$version" "$RELEASE_URL" "$DIST" > "$DIST/pointsman.krew.yaml"
say "the krew manifest"

(cd "$DIST" && sha256sum -- * > "$work/SHA256SUMS" && mv "$work/SHA256SUMS" SHA256SUMS)
say "the files are in $DIST:"
ls -l "$DIST" >&2
