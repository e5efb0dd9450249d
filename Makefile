# make demo         the whole pipeline on the CPU, offline: prints a table and the path of a report. SEED=2 for another world.
# make test-quick   the pure parts, in a minute: before each commit.
# make test         everything but the slow tests, in minutes: before a change lands.
# make test-all     everything, as CI does. WORKERS=8 on a machine with 8 cores.
# make docs         the schemas and pages that are generated from code, and the documentation as a site, in build/site.
# All make .venv first; what is installed there is pinned in constraints.txt.

PYTHON ?= python3
SEED ?= 1
OUT ?= runs/demo
WORKERS ?= 2
BIN := .venv/bin
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
PURE := $(addprefix tests/,evals generation gpt judges lab report rewards rl stats tasks text) \
	$(addprefix tests/,test_config.py test_docs.py test_recipes.py test_structure.py)

.PHONY: demo test-quick test test-all check docs install clean

demo: .venv/installed
	$(BIN)/align demo seed=$(SEED) output=$(OUT)

test-quick: .venv/installed
	$(PYTEST) -m "not slow and not heavy" $(PURE)

test: .venv/installed
	$(PYTEST)

test-all: .venv/installed
	$(PYTEST) -m ""

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/align schema >/dev/null
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
