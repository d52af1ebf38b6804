# CallFS: the tasks of a developer. `make help` lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEV    := .dev
SOURCES := setup.cfg pyproject.toml $(shell find callfs twisted -name '*.py' -o -name '*.sql' -o -name '*.lua')

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run test test-only servers lint format types docs bench simulate simulate-mutants clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

run: $(VENV)/.run-installed $(DEV)/config.yaml ## set up all that is needed, start a development daemon, print a curl line
	@$(BIN)/python etc/dev/announce.py $(DEV)/config.yaml & CALLFS_LOG__FORMAT=console exec $(BIN)/callfs server -c $(DEV)/config.yaml

$(DEV)/config.yaml: | $(VENV)/.run-installed
	@$(BIN)/callfs config init --directory $(DEV)

# Twice the cores: most tests wait, for fsync, for an election, for a daemon to start.
WORKERS ?= $(shell expr 2 '*' $$(nproc))

test: $(VENV)/.test-installed lint types ## set up all that is needed; run lint, types and all tests
	$(MAKE) --no-print-directory test-only

test-only: $(VENV)/.test-installed servers
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.test-installed ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test-installed ## mypy
	$(BIN)/mypy

format: $(VENV)/.test-installed ## bring the code into ruff's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test-installed ## the documentation as HTML in docs/_build
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

# The tests talk to real servers.
servers:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || etc/dev/apt-install postgresql
	@command -v redis-server >/dev/null || etc/dev/apt-install redis-server

bench: $(VENV)/.test-installed ## the benchmarks, each printed as a ratio (nginx is installed through apt when root and missing)
	@command -v nginx >/dev/null || etc/dev/apt-install nginx-light
	$(BIN)/python -m benchmarks

SEEDS ?= 1000
FIRST ?= 0

simulate: $(VENV)/.test-installed ## raft clusters under faults, on all cores: SEEDS=1000 FIRST=0 [SCENARIO=three]
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST) $(if $(SCENARIO),--scenario $(SCENARIO))

simulate-mutants: $(VENV)/.test-installed ## look afresh for seeds that catch each mutant of raft: FIRST=0
	$(BIN)/python -m tests.simulation --mutants --first $(FIRST)

clean: ## remove what the targets made, but not the development data in .dev
	rm -rf $(VENV) build dist *.egg-info docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "CallFS needs Python 3.11 or newer; '$(PYTHON)' is older. Try: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || etc/dev/apt-install python3-venv
	$(PYTHON) -m venv $(VENV)

# A real installation, not an editable one: what runs is what a user gets.
$(VENV)/.run-installed: $(SOURCES) | $(VENV)/bin/python
	$(BIN)/pip install --quiet .
	@rm -rf build *.egg-info
	@touch $@

$(VENV)/.test-installed: $(SOURCES) | $(VENV)/bin/python
	$(BIN)/pip install --quiet '.[dev]'
	@rm -rf build *.egg-info
	@touch $@ $(VENV)/.run-installed
