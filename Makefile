# Tetragon-mini. `make` alone lists the targets; each sets the checkout up first where that is needed.

BIN := .venv/bin
STAMP := .venv/setup.stamp
PYTEST := $(BIN)/python -m pytest
# Bytecode is kept: a start without it compiles a thousand modules.
unexport PYTHONDONTWRITEBYTECODE
SOURCES := libs services embedded tests $(if $(wildcard benchmarks/*.py),benchmarks)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-unit test-kernel test-kernels test-containers test-kubernetes chaos \
  fuzz check lint types proto requirements chart wheel packages bench screenshots audit clean

help:
	@echo 'usage: make TARGET'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(STAMP): scripts/setup requirements/build.txt requirements/dev.txt \
  $(wildcard pyproject.toml */pyproject.toml */*/pyproject.toml)
	@scripts/setup

setup: ## get everything this checkout needs: distribution packages, .venv/, pinned packages
	@scripts/setup

run: $(STAMP) ## NATS, collector and gateway on this machine, its events in this terminal (root; RUN=--help)
	@$(BIN)/tetra-embedded $(RUN)

test: $(STAMP) ## all tests but those with containers and Kubernetes: unit, integration, kernel, end to end
	@$(PYTEST) -m 'not containers and not kubernetes'

test-unit: $(STAMP) ## the tests that need no network, no root and a few seconds
	@$(PYTEST) tests/unit -n auto

test-kernel: $(STAMP) ## the tests that load BPF programs: kernel and end to end (root)
	@$(PYTEST) -m 'kernel and not kubernetes'

test-kernels: $(STAMP) ## all of it on other kernels, in QEMU (root; KERNELS='6.1 6.12-arm64': only these)
	@scripts/test-kernels

test-containers: $(STAMP) ## build the images and test them on a real Docker engine
	@scripts/test-containers

test-kubernetes: $(STAMP) ## test with a real containerd and pods made through CRI (root)
	@scripts/test-kubernetes

chaos: $(STAMP) ## kill, pause, cut off and fill everything while marked processes run (root; CHAOS=--help)
	@cd tests && ../$(BIN)/python -m chaos $(CHAOS)

fuzz: $(STAMP) ## feed made-up bytes to all that reads some, guided by coverage (FUZZ=--help)
	@cd tests && ../$(BIN)/python -m fuzz $(FUZZ)

check: lint types test ## what has to pass before a commit

lint: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(STAMP) ## mypy, strict
	@$(BIN)/mypy $(SOURCES)

proto: $(STAMP) ## regenerate the Python code of proto/
	@scripts/proto

requirements: $(STAMP) ## pin again what the pyproject.toml files ask for (UPGRADE=1: newest of all)
	@scripts/requirements $(if $(UPGRADE),--upgrade)

wheel: $(STAMP) ## build the client's wheel into build/wheels, for uv tool install and pipx install
	@cd deploy/client && ../../$(BIN)/hatchling build --target wheel --directory ../../build/wheels

packages: ## build Debian packages of this distribution's release into build/packages
	@scripts/packages

chart: $(STAMP) ## make the chart's README and its copies of shared files again
	@$(BIN)/python scripts/chart

bench: $(STAMP) ## measure everything beside its peers (root; BENCH=--help)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(BENCH)

screenshots: $(STAMP) ## make the pictures in docs/screenshots again
	@$(BIN)/python scripts/screenshots

audit: $(STAMP) ## look the pinned packages up in the database of known vulnerabilities
	@$(BIN)/pip-audit --disable-pip --require-hashes -r requirements/dev.txt

clean: ## remove what was made here, .venv/ included; a running stack's state stays
	rm -rf .venv .cache build .mypy_cache .pytest_cache .ruff_cache .hypothesis bpf/shim/include/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
