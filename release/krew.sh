#!/usr/bin/env bash
# Prints the manifest by which krew installs the plugin: VERSION, URL and the folder of the archives.
# Absent: other systems than Linux; the program is built for Linux alone.
set -euo pipefail
version=$1 url=$2 folder=$3
cat <<END
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: pointsman
spec:
  version: v$version
  shortDescription: See, plan and undo rollouts of model versions
  description: |
    Shows which version of a model runs in which workload, since when and why, what a move of its alias would do, and the code that
    trained it; pins, rolls back, approves and freezes. The operator Pointsman must run in the cluster.
  platforms:
END
for archive in "$folder"/kubectl-pointsman_*.tar.gz; do
    name=$(basename "$archive")
    architecture=${name##*_}
    cat <<END
  - selector: {matchLabels: {os: linux, arch: ${architecture%.tar.gz}}}
    uri: $url/v$version/$name
    sha256: $(sha256sum "$archive" | cut -d ' ' -f 1)
    bin: kubectl-pointsman
END
done
