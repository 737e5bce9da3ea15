# Every target makes what it needs: a virtual environment from the package index, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench docs licences audit clean help

help: ## what can be typed here
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "uihkv needs Python 3.11 or newer; try make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## the main job, end to end, on a real event log
	$(BIN)/uihkv demo --out demo-out

test: $(STAMP) lint ## lint, then every test
	$(BIN)/python -m pytest

lint: $(STAMP) ## ruff, mypy --strict, and pip-audit where it is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/python -m tools.supply audit

licences: $(STAMP) ## every package that is needed, and its licence
	@$(BIN)/python -m tools.supply licences

audit: $(STAMP) ## install pip-audit, and ask it about the pinned versions
	@$(BIN)/python -m pip install --quiet 'pip-audit>=2.7'
	@$(BIN)/python -m tools.supply audit

bench: $(STAMP) ## the benches; JSON in perf/out
	$(BIN)/python -m perf

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## the pages, in site/; any warning is an error
	$(BIN)/mkdocs build --strict --quiet

clean: ## take the environment and all outputs away
	rm -rf $(VENV) demo-out perf/out site
