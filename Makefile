# The commands of the project; CI runs the same ones.
# Absent: build rules. cargo builds the operator, pointsman-env starts the clusters and registries of the tests.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
ENVIRONMENT := $(CARGO) run --quiet -p pointsman-env --
DEFINITIONS := crds charts/pointsman/files/crds

.PHONY: help setup test lint demo bench fuzz upgrade compatibility image pod release crds argocd prerequisites

help: ## Show this list.
	@echo "Pointsman: moves of a model-registry alias become deployments, and moves back become rollbacks."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  Slow builds happen once, into \$$POINTSMAN_CACHE (default: ~/.cache/pointsman)."
	@echo "  Programs of a control plane are taken from \$$KUBEBUILDER_ASSETS or PATH if they are there."

setup: prerequisites ## Build the control plane's programs and MLflow, once per machine.
	$(ENVIRONMENT) setup

test: setup lint ## Set up and run all tests, as CI does.
	$(CARGO) build --workspace
	$(ENVIRONMENT) with-mlflow -- $(CARGO) test --workspace
	$(ENVIRONMENT) tool helm -- lint --strict charts/pointsman

lint: prerequisites ## Check formatting, run clippy, and check the dependencies.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(ENVIRONMENT) tool cargo-deny -- --locked check licenses bans sources

demo: prerequisites ## Show an alias move forward and back. CONTEXT=kind-x uses an existing cluster.
	$(CARGO) build -p pointsman -p pointsman-env
	$(ENVIRONMENT) demo $(if $(CONTEXT),--context '$(CONTEXT)')

# The operator is measured as the image has it. The benchmark itself has the dev profile, which saves a second release build.
bench: setup ## Measure the release build against its goals. OPTIONS=--help explains parts and options.
	$(if $(filter --help -h,$(OPTIONS)),,CARGO='$(CARGO)' release/program.sh)
	$(CARGO) bench --profile dev --bench pointsman -- $(OPTIONS)

# FUZZ_RUNS is the number of inputs of each target, FUZZ_SEED where its sequence begins. The corpora are in tests/corpora.
# An input that takes all memory ends the run at the limit (KiB), and not the machine.
fuzz: prerequisites ## Try ten million inputs on each parser of what others write, and print the counts.
	$(CARGO) test --profile fuzz --lib --no-run
	ulimit -v 6000000; FUZZ_RUNS=$${FUZZ_RUNS:-10000000} $(CARGO) test --profile fuzz --lib -- --nocapture fuzz

# FROM is the commit; its operator is built once more, in a checkout of its own that is removed afterwards.
upgrade: setup ## Upgrade from the commit FROM to this one and back, under live bindings: no pod may be replaced.
	@[ -n '$(FROM)' ] || { echo "missing: FROM, the commit to upgrade from, as in: make upgrade FROM=HEAD~1" >&2; exit 1; }
	@folder=$$(mktemp -d); trap 'git worktree remove --force "$$folder"' EXIT; \
	git worktree add --detach "$$folder" '$(FROM)'; \
	(cd "$$folder" && CARGO_TARGET_DIR=target $(CARGO) build -p pointsman); \
	$(CARGO) build --workspace; \
	POINTSMAN_PREVIOUS="$$folder" $(ENVIRONMENT) with-mlflow -- $(CARGO) test --test scenarios an_upgrade

# The scenarios alone: a kubelet may not be newer than the API server. FILTER is a part of the names of scenarios.
KUBERNETES ?= 1.30
compatibility: export POINTSMAN_KUBERNETES_VERSION = $(KUBERNETES)
compatibility: prerequisites ## Run the scenarios on the oldest Kubernetes that is supported. FILTER=… runs a part of them.
	$(ENVIRONMENT) setup
	$(CARGO) build -p pointsman -p pointsman-env
	$(ENVIRONMENT) with-mlflow -- $(CARGO) test --test scenarios -- $(FILTER)

# IMAGE is the name, PLATFORMS such as linux/amd64,linux/arm64 (docker with buildx, podman and buildah emulate the foreign one).
IMAGE ?= pointsman:$(shell sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/pointsman/Chart.yaml)
image: ## Build the image with docker, podman or buildah. IMAGE=… names it, PLATFORMS=linux/arm64 is for another machine.
	@engine=; for each in docker podman buildah; do if $$each info >/dev/null 2>&1; then engine=$$each; break; fi; done; \
	if [ -z "$$engine" ]; then \
		echo "missing: docker (with its daemon running), podman or buildah; install one (Debian: apt-get install podman)" >&2; exit 1; \
	fi; \
	epoch=$$(git log -1 --format=%ct 2>/dev/null || echo 0); \
	image='$(IMAGE)'; \
	echo "building $$image with $$engine"; \
	$$engine build $(if $(PLATFORMS),--platform '$(PLATFORMS)') --build-arg "SOURCE_DATE_EPOCH=$$epoch" \
		--build-arg "VERSION=$${image##*:}" --label "org.opencontainers.image.revision=$$(git rev-parse HEAD 2>/dev/null || true)" \
		--tag "$$image" .

# As in CI, but with the program of the image instead of the one that the tests have built.
pod: setup ## Run the image's program in a pod of a real node. No container engine is needed.
	CARGO='$(CARGO)' release/program.sh
	POINTSMAN_IMAGE_PROGRAM="$${CARGO_TARGET_DIR:-target}/release/pointsman" \
		$(ENVIRONMENT) with-mlflow -- $(CARGO) test --test node the_operator_in_its_own_pod

release: prerequisites ## Make the files of a release in dist/: binaries, chart, install.yaml, krew manifest, bill of materials, checksums.
	@HELM='$(ENVIRONMENT) tool helm --' release/build.sh

crds: prerequisites ## Generate the definitions and docs/api.md from src/api, and docs/values.md.
	@for folder in $(DEFINITIONS); do \
		$(CARGO) run --quiet -p pointsman -- crds --output $$folder; \
		echo "written: $$folder"; \
	done
	@$(CARGO) run --quiet -p pointsman -- crds --markdown > docs/api.md
	@echo "written: docs/api.md"
	@$(ENVIRONMENT) values-table > docs/values.md
	@echo "written: docs/values.md"

argocd: prerequisites ## Generate the fragment of argocd-cm from the scripts in integrations/argocd.
	@$(ENVIRONMENT) argocd-cm > integrations/argocd/argocd-cm.yaml.new
	@mv integrations/argocd/argocd-cm.yaml.new integrations/argocd/argocd-cm.yaml

# The programs that must be there before cargo runs. The setup checks all others.
prerequisites:
	@missing=0; \
	need() { command -v "$$1" >/dev/null || { echo "missing: $$1; $$2" >&2; missing=1; }; }; \
	need '$(CARGO)' 'install Rust 1.89 or newer (https://rustup.rs)'; \
	need cc 'install a C compiler (Debian: apt-get install build-essential)'; \
	exit $$missing
