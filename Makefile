# make demo   the whole pipeline on the CPU, offline: prints a table and the path of a report. SEED=2 for another world.
# make test   the tests.
# make docs   the documentation as a site, in build/site.
# All make .venv first; what is installed there is pinned in constraints.txt.

PYTHON ?= python3
SEED ?= 1
OUT ?= runs/demo
BIN := .venv/bin

.PHONY: demo test check docs install clean

demo: .venv/installed
	$(BIN)/python -m align.pipeline recipes/demo.yaml seed=$(SEED) output=$(OUT) existing=rename

test: .venv/installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/python docs/pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,apps,serve,track,lm-eval,gguf,docs]"
	touch $@

clean:
	rm -rf .venv build *.egg-info
