# Everything runs in .venv, which `make setup` builds and which every other target brings up to date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/innerloop/v1/*.proto)

.PHONY: setup demo test test-slow lint proto bench clean

setup: $(VENV)/.complete

# torch comes first and pinned, so that nothing else pulls in another build of it.
$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Innerloop needs Python 3.11 or newer; name one with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: setup
	$(BIN)/innerloop demo

test: setup lint
	$(BIN)/python -m pytest -m 'not slow' -n auto

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_stubs.py --check

proto: setup
	$(BIN)/python scripts/generate_stubs.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
