# Run `make` for the list of targets. Everything happens in .venv; nothing is installed into the system but the Debian
# packages that tools/install.py names, and those only as root.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMAGE ?= remediator:dev
ARGS ?=
# Tests wait for servers most of the time, so there is a worker more than cores; a module's tests stay together.
WORKERS ?= $(shell echo $$(( 1 + $$(nproc) )))
PARALLEL := --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder
SOAKED ?= tests/unit/api tests/stateful tests/crash tests/chaos tests/hostile

.PHONY: help
help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP) ## show the service at work on real servers; needs no cluster and no account
	@$(PYTHON) tools/install.py --demo
	@$(BIN)/python -m tools.demo $(ARGS)

.PHONY: run
run: $(STAMP) ## run the service from this checkout (ARGS="--mode observe")
	@$(BIN)/remediator serve $(ARGS)

.PHONY: test
test: check bed ## everything: the checks, then every test on real servers (ARGS="-k redis")
	$(BIN)/pytest $(PARALLEL) $(ARGS)

.PHONY: quick
quick: lint type ## a minute: the checks, and the unit tests that need no server
	$(BIN)/pytest $(PARALLEL) -m "not server" tests/unit $(ARGS)

.PHONY: soak
soak: $(STAMP) bed ## the long versions: malformed bodies, random histories, crashes, outages, hostile input (hours)
	REMEDIATOR_HYPOTHESIS=soak $(BIN)/pytest $(PARALLEL) $(SOAKED) --timeout=72000 $(ARGS)

.PHONY: bench
bench: $(STAMP) bed ## measure the service beside simple receivers (ARGS="--only latency", ARGS=--small; an hour)
	$(BIN)/python -m tools.bench $(ARGS)

.PHONY: bed
bed: ## install the real servers that the tests start, where that is possible
	@$(PYTHON) tools/install.py

.PHONY: check
check: lint type imports ## lint, types and layers, without running anything

.PHONY: fmt
fmt: $(STAMP) ## format the code and fix it where possible
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: lint
lint: $(STAMP) ## check style, format and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z -- . ':!*.sum' ':!tests/*' | xargs -0 $(BIN)/codespell

.PHONY: type
type: $(STAMP) ## check types
	$(BIN)/mypy

.PHONY: imports
imports: $(STAMP) ## check that imports point down the layers
	$(BIN)/lint-imports

.PHONY: schema
schema: $(STAMP) ## print the JSON Schema of remediation files
	@$(BIN)/remediator schema

.PHONY: image
image: ## build the container image (IMAGE=remediator:dev, ARGS="--build-arg BASE=...")
	docker build --tag $(IMAGE) $(ARGS) .

.PHONY: clean
clean: ## remove the virtual environment and every cache of this checkout
	rm -rf $(VENV) .*_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again only when the packages to install have changed.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@
