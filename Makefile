# make quickstart: install, then a first real search.   make test lint: everything the CI checks.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: quickstart setup test test-all lint format clean help

help:                    ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

quickstart: $(VENV)/.train  ## Install into .venv and run a first search (no download of data).
	SKDTUNE=$(BIN)/skdtune scripts/quickstart.sh

setup: $(VENV)/.dev      ## Install what development and tests need.

PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev       ## Run all tests; every two values of the parameters of a test meet.
	$(PYTEST)

test-all: $(VENV)/.dev   ## Run all tests with all combinations, after a change to a method or family.
	$(PYTEST) --full

lint: $(VENV)/.dev       ## Check style, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev     ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:                   ## Remove the virtual environment and all caches.
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "skdtune needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.train
