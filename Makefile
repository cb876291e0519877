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

setup: ## install everything this checkout needs: distribution packages, .venv/, pinned packages
	@scripts/setup

run: $(STAMP) ## start NATS, collector and gateway here and print the events (root; RUN=--help)
	@$(BIN)/tetra-embedded $(RUN)

test: $(STAMP) ## run all tests except those with containers and Kubernetes
	@$(PYTEST) -m 'not containers and not kubernetes'

test-unit: $(STAMP) ## run the unit tests: no network, no root, a few seconds
	@$(PYTEST) tests/unit -n auto

test-kernel: $(STAMP) ## run the tests that load BPF programs: kernel and end to end (root)
	@$(PYTEST) -m 'kernel and not kubernetes'

test-kernels: $(STAMP) ## run the kernel tests on other kernels, in QEMU (root; KERNELS='6.1 6.12-arm64')
	@scripts/test-kernels

test-containers: $(STAMP) ## build the images and test them on a real Docker engine
	@scripts/test-containers

test-kubernetes: $(STAMP) ## test with a real containerd, API server and one-node cluster (root)
	@scripts/test-kubernetes

chaos: $(STAMP) ## inject faults while numbered processes run (root; CHAOS=--help)
	@cd tests && ../$(BIN)/python -m chaos $(CHAOS)

fuzz: $(STAMP) ## fuzz every parser, guided by coverage (FUZZ=--help)
	@cd tests && ../$(BIN)/python -m fuzz $(FUZZ)

check: lint types test ## run lint, types and test: required before a commit

lint: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(STAMP) ## mypy, strict
	@$(BIN)/mypy $(SOURCES)

proto: $(STAMP) ## regenerate the Python code of proto/
	@scripts/proto

requirements: $(STAMP) ## pin all dependencies (UPGRADE=1: newest versions)
	@scripts/requirements $(if $(UPGRADE),--upgrade)

wheel: $(STAMP) ## build the client's wheel into build/wheels, for uv tool install and pipx install
	@cd deploy/client && ../../$(BIN)/hatchling build --target wheel --directory ../../build/wheels

packages: ## build Debian packages of this distribution's release into build/packages
	@scripts/packages

chart: $(STAMP) ## regenerate the chart's README and its copies of shared files
	@$(BIN)/python scripts/chart

bench: $(STAMP) ## run the benchmarks beside comparable tools (root; BENCH=--help)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(BENCH)

screenshots: $(STAMP) ## regenerate the pictures in docs/screenshots
	@$(BIN)/python scripts/screenshots

audit: $(STAMP) ## check the pinned packages for known vulnerabilities
	@$(BIN)/pip-audit --disable-pip --require-hashes -r requirements/dev.txt

clean: ## remove everything that make has created, .venv/ included; the state of a stack stays
	rm -rf .venv .cache build .mypy_cache .pytest_cache .ruff_cache .hypothesis bpf/shim/include/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
