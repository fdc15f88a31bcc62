# The few commands that everything is done with; CI runs the same ones.
# Absent: how anything is done. cargo knows the operator, pointsman-env the clusters and registries it is tried on.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
ENVIRONMENT := $(CARGO) run --quiet -p pointsman-env --
DEFINITIONS := crds charts/pointsman/files/crds

.PHONY: help setup test lint demo bench crds prerequisites

help: ## Show this list.
	@echo "Pointsman: moves of a model-registry alias become deployments, and moves back become rollbacks."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  What takes long is built once, into \$$POINTSMAN_CACHE (default: ~/.cache/pointsman)."
	@echo "  Control planes of your own are used from \$$KUBEBUILDER_ASSETS, or from PATH."

setup: prerequisites ## Build the control plane's programs and MLflow, once per machine.
	$(ENVIRONMENT) setup

test: setup lint ## Set up, and pass every test: what CI runs.
	$(CARGO) build --workspace
	$(ENVIRONMENT) with-mlflow -- $(CARGO) test --workspace
	$(ENVIRONMENT) tool helm -- lint --strict charts/pointsman

lint: prerequisites ## Check formatting, and let clippy read everything.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

demo: prerequisites ## Move an alias forward and back, and watch. CONTEXT=kind-x uses a cluster you have.
	$(CARGO) build -p pointsman -p pointsman-env
	$(ENVIRONMENT) demo $(if $(CONTEXT),--context '$(CONTEXT)')

# What is measured is the release build. What measures is not: it would cost a second one, and replace the first.
bench: setup ## Measure the release build against its goals. OPTIONS=--help explains parts and options.
	$(if $(filter --help -h,$(OPTIONS)),,$(CARGO) build --release)
	$(CARGO) bench --profile dev --bench pointsman -- $(OPTIONS)

crds: prerequisites ## Generate the custom resource definitions from src/api.
	@for folder in $(DEFINITIONS); do \
		$(CARGO) run --quiet -p pointsman -- crds --output $$folder; \
		echo "written: $$folder"; \
	done

# What cargo cannot say of itself. The setup names everything else that is missing, and only what it needs.
prerequisites:
	@missing=0; \
	need() { command -v "$$1" >/dev/null || { echo "missing: $$1; $$2" >&2; missing=1; }; }; \
	need '$(CARGO)' 'install Rust 1.89 or newer (https://rustup.rs)'; \
	need cc 'install a C compiler (Debian: apt-get install build-essential)'; \
	exit $$missing
