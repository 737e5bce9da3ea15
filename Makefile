# Every target makes what it needs: a virtual environment from the package index, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What only tests and packaging need comes when they are asked for: the demo is sooner there.
DEV_STAMP := $(VENV)/.installed-dev
# Benches have an environment of their own: what others are made of would make the tests' three times as large.
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
# Compiling every module of every package is half of an installation: Python does it for those that are imported, and
# where many processes import them, here with all cores. Some packages ship what is no Python of this version: no error.
INSTALL := -m pip install --quiet --no-compile --constraint constraints.txt
COMPILE := -m compileall -qq -j 0
# Without what it asks for: torchvision, which it needs for pictures alone, and for which pip tries torch after torch.
LITDATA := litdata lightning-utilities boto3 botocore s3transfer jmespath

.PHONY: demo test lint bench bench-full docs licences audit package clean help

help: ## what can be typed here
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "uihkv needs Python 3.11 or newer; try make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) --editable .
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/python $(INSTALL) --editable '.[dev]'
	@$(BIN)/python $(COMPILE) $(VENV)/lib || true
	@touch $@

demo: $(STAMP) ## the main job, end to end, on a real event log
	$(BIN)/uihkv demo --out demo-out

test: $(DEV_STAMP) lint ## lint, then every test, in two processes
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: $(DEV_STAMP) ## ruff, mypy --strict, and pip-audit where it is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/python -m tools.supply audit

licences: $(DEV_STAMP) ## every package that is needed, and its licence
	@$(BIN)/python -m tools.supply licences

package: $(DEV_STAMP) ## sdist and wheel, each installed in a new environment, where the demo runs
	$(BIN)/python -m tools.cleanroom

audit: $(DEV_STAMP) ## install pip-audit, and ask it about the pinned versions
	@$(BIN)/python -m pip install --quiet 'pip-audit>=2.7'
	@$(BIN)/python -m tools.supply audit

$(BENCH_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python $(INSTALL) --editable '.[bench]'
	$(BENCH_VENV)/bin/python $(INSTALL) --no-deps $(LITDATA)
	@$(BENCH_VENV)/bin/python $(COMPILE) $(BENCH_VENV)/lib || true
	@touch $@

bench: $(BENCH_STAMP) ## the short form of every bench beside its peers, about 12 minutes; perf/REPORT.md
	$(BENCH_VENV)/bin/python -m perf

bench-full: $(BENCH_STAMP) ## the long form of every bench; hours
	$(BENCH_VENV)/bin/python -m perf --full

$(VENV)/.docs: $(DEV_STAMP)
	$(BIN)/python $(INSTALL) --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## the pages, in site/; any warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## take the environment and all outputs away
	rm -rf $(VENV) $(BENCH_VENV) demo-out perf/out site
