# `make help` lists the targets. Everything lives in .venv and runs/; nothing is installed elsewhere.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
TILES := samples/river_highway

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean

help:
	@echo "make demo    train on the bundled sample, classify some of it, name the report to open"
	@echo "make test    every check: ruff, mypy, lint-imports, pytest (WORKERS=2 processes)"
	@echo "make lint    the checks without pytest"
	@echo "make clean   remove caches and runs/demo (.venv stays: rm -r .venv to start afresh)"

# Stamps: pip runs again only when a file on the right has changed.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.installed
	$(BIN)/plusx train $(TILES) --weights bundled --out runs/demo --overwrite
	$(BIN)/plusx evaluate runs/demo $(TILES) --split test
	$(BIN)/plusx predict runs/demo '$(TILES)/test/*/*1.jpg' --top 2
	@echo
	@echo "Done. Open this page in a browser: $(CURDIR)/runs/demo/report.html"

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One thread a process: two test processes with two threads each only get in each other's way.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

clean:
	rm -rf runs/demo build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
