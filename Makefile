# Everything runs in .venv, which `setup` makes from pyproject.toml under the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help setup submit test check
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## make .venv, if it is not current

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON): no Python \
	with venv and pip, 3.11 or newer. Install it (on Debian: python3 and python3-venv), or name one: \
	make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,check]'
	touch $@

submit: setup  ## the main job: train, predict, write a checked submission (options: make submit ARGS='--seed 1')
	$(BIN)/python -m kaggle_digits.submit $(ARGS)

test: setup  ## run all tests
	$(BIN)/python -m pytest $(ARGS)

check: setup  ## lint, formatting, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py
