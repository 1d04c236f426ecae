# One-word tasks. Each makes the virtual environment it needs and keeps it until pyproject.toml or
# constraints.txt changes. Another interpreter: make run PYTHON=python3.12

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench wheel clean

help: ## list the tasks
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 16

run: $(VENV)/.run ## set up and open the app in the browser
	$(BIN)/palimpsest run

test: $(VENV)/.dev ## set up and run all tests, those in a browser included, a file on each core
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.dev ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the code to the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.run ## print the benchmark table and write bench.json
	$(BIN)/python -m benchmarks

wheel: $(VENV)/.dev ## build the distribution files into dist/
	$(BIN)/python -m hatchling build --clean --directory dist

clean: ## remove the environment and everything else that was made here
	rm -rf $(VENV) dist bench.json .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Palimpsest needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(PINS) | $(BIN)/pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(PINS) | $(BIN)/pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.run
