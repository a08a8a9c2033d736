# `make help` lists the targets. Every target does its own set-up and may be run again.

# Debian's own, which the product runs on, where it is new enough and can make environments
PYTHON  ?= $(shell for python in /usr/bin/python3 python3; do \
	"$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& break; done; echo "$$python")
WORKERS ?= 2

VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Empty counts as not set: what tests import is compiled once, not in each of their processes.
export PYTHONDONTWRITEBYTECODE :=

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test test-fast lint format demo deb bench clean test-tools test-hosts

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## Virtual environment; then use .venv/bin/agentctl, .venv/bin/deploy-agent
	@# Compiled here, so that agentctl starts at once.
	@$(BIN)/python -m compileall -q agent

test: setup test-tools test-hosts  ## Everything: linters, types, layers, sizes, glossary, all tests
	$(PYTEST) tests

test-fast: setup test-tools  ## The same without the tests marked slow or host (about a minute)
	$(PYTEST) -m "not slow and not host" tests

lint: setup test-tools  ## Only ruff, mypy, shellcheck, layers, sizes, glossary
	$(PYTEST) -rP tests/lint

format: setup  ## Let ruff put the code in shape
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# No virtual environment where it boots a host of its own: that takes nothing but Python. Elsewhere it makes it.
demo:  ## On a Debian 12 booted for it: a good revision, a bad one, the good one serving again
	@.ci/debian-packages python "$(PYTHON)"
	@.ci/debian-packages demo
	@PYTHON="$(PYTHON)" examples/demo/run

deb:  ## Build dist/deploy-agent_<version>_all.deb, for Debian 12 and 13
	@.ci/debian-packages deb
	@packaging/build-deb

bench: setup test-tools  ## Measure the agent's own overhead
	$(BIN)/python -m bench.run

clean:  ## Remove everything that these targets made
	rm -rf /var/tmp/deploy-agent-lab /var/tmp/deploy-agent-consul
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	rm -rf build dist examples/go-service/build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

test-tools:
	@.ci/debian-packages tests

# What the test hosts boot, 30 s for each Debian on a new machine; here, so that no test waits for it.
test-hosts: setup test-tools
	@$(BIN)/python -m tests.lab.base

# A stamp each: a run that was interrupted leaves none, and the next one starts over.
$(VENV)/.created:
	@.ci/debian-packages python "$(PYTHON)"
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.created
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
