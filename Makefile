# Everything runs in .venv. `setup` makes it from pyproject.toml, with the versions of constraints.txt.
PYTHON ?= python3
# Empty for the newest versions of everything: make test CONSTRAINTS=
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
INSTALLED := .venv/installed

# The Kaggle client of Kaggle's own image, with its SDK: the tests use it as well as today's.
CLIENT := .venv/clients/2.0.2
# Keras' oldest version that exported files are promised to, and that of Kaggle's own image: the tests read files with them.
KERAS := .venv/keras/3.10.0 .venv/keras/3.13.2
# pandas imports it where it is installed. The tests see that TensorFlow comes before both.
ARROW := .venv/pyarrow/26.0.1
# An environment like Kaggle's own image.
KAGGLE := .venv-kaggle

.PHONY: help setup submit test test-kaggle test-package soak fuzz mutation coverage audit networks check lint docs dist notebooks tutorial
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## make .venv, unless it is up to date

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON): no Python \
	with venv and pip, 3.11 or newer. Install it (on Debian: python3 and python3-venv), or name one: \
	make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing what is needed into .venv. This takes a few minutes, and is done once."
	$(PYTHON) -m venv .venv
	$(if $(CONSTRAINTS),$(PIP) --require-hashes --requirement $(CONSTRAINTS))
	$(PIP) $(if $(CONSTRAINTS),--no-deps --no-build-isolation) --editable '.[all,test,check,docs]'
	touch $@

submit: setup  ## the main job: train, predict, write a checked submission (options: make submit ARGS='--seed 1')
	$(BIN)/python -m kaggle_digits.submit $(ARGS)

test: setup $(CLIENT) $(KERAS) $(ARROW)  ## run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

$(CLIENT): $(INSTALLED)
	rm -rf $@
	$(PIP) --no-deps --target $@ kaggle==2.0.2 kagglesdk==0.1.20
	touch $@

$(KERAS) $(ARROW): $(INSTALLED)
	rm -rf $@
	$(PIP) --no-deps --target $@ $(notdir $(@D))==$(@F)
	touch $@

test-kaggle: $(KAGGLE)/installed  ## run all tests with the versions of Kaggle's own image
	$(KAGGLE)/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

$(KAGGLE)/installed: pyproject.toml constraints-kaggle.txt
	$(PYTHON) -m venv $(KAGGLE)
	$(KAGGLE)/bin/pip install --quiet --disable-pip-version-check --constraint constraints-kaggle.txt --editable '.[all,test]'
	touch $@

# Tools that only these targets need.
SOAK := .venv/soak

$(SOAK): $(INSTALLED)
	$(PIP) --editable '.[soak]'
	touch $@

soak: $(SOAK)  ## inject every fault and attack hundreds of times (two hours), and write the table of the documentation
	$(BIN)/python -m pytest --soak docs/benchmarks/faults-table.md tests/faults $(ARGS)

fuzz: $(SOAK)  ## try 200,000 damaged files of each kind, guided by coverage
	$(BIN)/python -m pytest --soak build/fuzz.md tests/faults/test_fuzz.py $(ARGS)

mutation: $(SOAK)  ## change the core modules in 2,200 ways, one at a time, and see whether their tests notice
	$(BIN)/mutmut run

coverage: setup $(CLIENT) $(KERAS) $(ARROW)  ## run all tests, and say which lines of the package they leave out
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov kaggle_digits --cov-report term:skip-covered $(ARGS)

audit: $(SOAK)  ## look for known faults of the installed packages, in public lists
	$(BIN)/pip-audit --strict --skip-editable

notebooks: setup  ## rebuild notebooks/*.ipynb after a change of notebooks/digits.py or of the package
	$(BIN)/jupytext --quiet --to ipynb --update --output notebooks/digits.ipynb notebooks/digits.py
	$(BIN)/kaggle-digits kernel build --to .

tutorial: notebooks  ## run the tutorial, so that it shows its results: make tutorial DATA=digit-recognizer.zip
	rm -rf build/tutorial
	mkdir -p build/tutorial/data
	cp $(DATA) build/tutorial/data/digit-recognizer.zip
	$(BIN)/python tests/run_notebook.py notebooks/digits.ipynb build/tutorial build/tutorial.ipynb
	mv build/tutorial.ipynb notebooks/digits.ipynb

networks: setup  ## train both networks of the package again (three hours), and compare: make networks DATA=digit-recognizer.zip
	rm -rf build/handwriting
	$(BIN)/kaggle-digits train --recipe handwriting --data $(DATA) --run build/handwriting
	$(BIN)/python benchmarks/package_ink.py --data $(DATA) --out build/ink.npz
	$(BIN)/python benchmarks/package_network.py build/handwriting build/ink.npz

check: docs lint  ## check lint, formatting, types, layers, spelling, and the documentation with its links

lint: setup  ## check the code alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: setup  ## build the documentation into docs/_build/html; warnings are errors
	cp CHANGELOG.md docs/changelog.md
	cp CONTRIBUTING.md docs/contributing.md
	cp benchmarks/log.md docs/benchmarks/log.md
	cp notebooks/digits.ipynb docs/tutorial.ipynb
	$(BIN)/kaggle-digits export --format web --out docs/static/digits.html --data sample --force
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

dist: setup  ## build wheel and sdist of the commit twice, and check that both builds are the same, byte for byte
	git diff --quiet HEAD || { echo "some files are not committed" >&2; exit 1; }
	rm -rf dist build/again
	for folder in dist build/again; do SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build \
	--no-isolation --outdir $$folder . || exit 1; done
	diff -r dist build/again
	$(BIN)/pip hash dist/*

test-package: dist  ## install the wheel into an empty environment, and run the main job there
	rm -rf build/package
	$(PYTHON) -m venv build/package
	build/package/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	cd build/package && bin/kaggle-digits submit --data sample
