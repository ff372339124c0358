# Every command of this project, from a machine that has Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PIP_LOCKED := $(PIP) install --require-hashes --no-deps --no-build-isolation
SOURCES := rego bundles pdp gateway agent cli examples benchmarks tests tools
RUN_DIR ?= run
UV ?= uv
LOCK := $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11
EXTRAS := envoy s3
NODE_DIR := tests/e2e/node
# What they try are processes of their own, which would not run under -O. Waiting is much of their time, so their modules
# are shared out over runs side by side.
OWN_PROCESSES := tests/e2e tests/integration tests/agreement tests/cli tests/examples tests/soak
SHARES := 1 2 3
SHARED_RUNS := $(SHARES:%=processes-%)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env dev-env envoy s3 run test lint types unit $(SHARED_RUNS) unit-optimized coverage bench opa opa-envoy regal soak lock clean

help:
	@echo "make run [ONCE=1]  the quick start: a gate with stand-in services, one call allowed, one denied, one held"
	@echo "make test          everything a commit must pass (lint, types, tests twice, coverage)"
	@echo "make lint          ruff, mypy, Regal and the architecture test alone"
	@echo "make opa           the pinned OPA, built once into .tools/opa"
	@echo "make bench         side-by-side measurements, written to benchmarks/results/"
	@echo "make soak          the long forms of the crash tests"

# --- environments -------------------------------------------------------------------------------------------------
env: $(VENV)/.env-stamp

$(VENV)/.env-stamp: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=/path/to/python3"; exit 3; }
	@test -x $(BIN)/python || { echo "Making the environment in $(VENV) (once)"; $(PYTHON) -m venv $(VENV); }
	@$(PIP_LOCKED) --only-binary :all: -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

dev-env: env $(VENV)/.dev-stamp

$(VENV)/.dev-stamp: requirements-dev.lock $(VENV)/.env-stamp
	@$(PIP_LOCKED) -r requirements-dev.lock
	@touch $@

opa: dev-env
	@$(BIN)/python tools/opa/build.py

regal: dev-env
	@$(BIN)/python tools/regal/build.py

# OPA with Envoy's plugin: what the gate is measured against.
opa-envoy: dev-env
	@$(BIN)/python tools/opa/build.py opa-envoy

# Node is test equipment: from the PATH, else from its wheel in the development lock.
$(NODE_DIR)/node_modules/.stamp: $(NODE_DIR)/package.json $(NODE_DIR)/package-lock.json | dev-env
	@$(BIN)/python tests/e2e/node/install.py
	@touch $@

# The extra of the ext_authz door (docs/envoy.md), for a gate that runs from this environment.
envoy: env
	@$(PIP_LOCKED) --only-binary :all: -r requirements-envoy.lock

# The extra of a bundle service on object storage (docs/bundle-service.md), likewise.
s3: env
	@$(PIP_LOCKED) --only-binary :all: -r requirements-s3.lock

# Pins stay as they are unless pyproject.toml asks for others; take a pin out of its lock to have it chosen anew.
lock:
	@$(LOCK) --output-file requirements.lock pyproject.toml requirements-build.in
	@$(LOCK) --output-file requirements-dev.lock --group dev pyproject.toml requirements-build.in
	@for extra in $(EXTRAS); do \
		$(PYTHON) -c 'import sys, tomllib; print(*tomllib.load(sys.stdin.buffer)["project"]["optional-dependencies"][sys.argv[1]], sep="\n")' \
			$$extra <pyproject.toml | $(LOCK) --constraint requirements-dev.lock --output-file requirements-$$extra.lock - || exit 1; \
	done

# --- what people type ---------------------------------------------------------------------------------------------
run: env
	@$(BIN)/python -m examples.quickstart --dir $(RUN_DIR) $(if $(ONCE),--once)

lint: dev-env regal
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@NO_COLOR=1 .tools/regal lint --config-file tools/regal/config.yaml rego
	@$(BIN)/python -m pytest tests/architecture

unit: dev-env opa $(NODE_DIR)/node_modules/.stamp
	@$(BIN)/coverage run -m pytest -m "not soak" $(OWN_PROCESSES:%=--ignore=%)

$(SHARED_RUNS): processes-%: dev-env opa $(NODE_DIR)/node_modules/.stamp
	@$(BIN)/coverage run -m pytest -m "not soak" --share $*/$(words $(SHARES)) $(OWN_PROCESSES)

unit-optimized: dev-env opa $(NODE_DIR)/node_modules/.stamp
	@$(BIN)/python -O -m pytest -m "not soak" $(OWN_PROCESSES:%=--ignore=%)

coverage: dev-env
	@$(BIN)/coverage combine --quiet
	@$(BIN)/python tools/coverage_gates.py

test:
	@$(MAKE) --no-print-directory lint
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory --jobs=5 $(SHARED_RUNS) unit unit-optimized
	@$(MAKE) --no-print-directory coverage

bench: dev-env opa opa-envoy
	@$(BIN)/python -m benchmarks

soak: dev-env opa
	@$(BIN)/python -m pytest -m soak --timeout 7200

clean:
	rm -rf $(VENV) run .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache $(NODE_DIR)/node_modules
