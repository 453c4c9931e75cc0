# Every verb of the benchmark. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
SUITE ?= quick
MODEL ?= vae
DATA ?= digits
TRIALS ?= 64

# Large blocks stay with the process: glibc returns them after every step otherwise, which costs up to a quarter.
export MALLOC_MMAP_THRESHOLD_ := 33554432
export MALLOC_TRIM_THRESHOLD_ := 17179869184
export MALLOC_TOP_PAD_ := 134217728

.DEFAULT_GOAL := help
.PHONY: help setup benchmark reproduce report dashboard sync bench sweep optuna-dashboard truth list test test-all \
  lint types leaderboards site lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## build the environment in .venv, nothing else

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11: install one and say make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -m venv .venv || { echo "error: no venv module: apt-get install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

benchmark: setup ## train, score and rank one model a family on embedded data (SUITE=quick): minutes
	$(BIN)/python -m benchmark suite $(SUITE)

bench: setup ## ours beside other packages, for speed; then what the harness adds to a training step of each model
	@code=0; for verb in peers bench; do OMP_NUM_THREADS=1 $(BIN)/python -m benchmark $$verb || code=$$?; done; exit $$code

sweep: setup ## study hyperparameters: make sweep MODEL=vae DATA=digits TRIALS=64
	$(BIN)/python -m benchmark sweep model=$(MODEL) data=$(DATA) trials=$(TRIALS)

optuna-dashboard: setup ## look at the studies below runs/ in a browser
	@test -f runs/studies/journal.log || { echo "error: there is no study below runs/ yet: make sweep"; exit 2; }
	$(BIN)/optuna-dashboard --storage-class JournalFileStorage runs/studies/journal.log

truth: setup ## every model with a likelihood on data whose entropy is known, judged by it; minutes
	$(BIN)/python -m benchmark truth
	$(BIN)/python tests/helpers/exact.py

list: setup ## models, datasets and suites
	@$(BIN)/python -m benchmark list

test: setup ## the quick tests: laws, units, records; some 3 minutes on two quick cores, 7 on slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-all: setup ## every test, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

lint: setup ## ruff, for style and for faults
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy, strict; tests need fewer hints
	$(BIN)/mypy

reproduce: setup ## run RECORD=FILE again and say whether it is reproduced (exit code 0, 3: differs, 4: not comparable)
	$(BIN)/python -m benchmark verify $(RECORD)

report: setup ## how reproducible the committed records are, or those of SUITES="digits mnist", as HTML and Markdown
	$(BIN)/python -m benchmark report $(SUITES)

dashboard: setup ## the project's views in Weights & Biases: written down, or saved with ENTITY=NAME
	$(BIN)/python -m benchmark dashboard $(if $(ENTITY),--entity $(ENTITY))

sync: setup ## upload the runs below runs/ that Weights & Biases logged offline
	$(BIN)/python -m benchmark sync

leaderboards: setup ## render leaderboards/*.md from the committed records
	$(BIN)/python -m benchmark leaderboard

site: setup ## render the static site leaderboards/site/ from the committed records
	$(BIN)/python -m benchmark site

lock: setup ## resolve the dependencies anew: exact versions with hashes, no addresses
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra peers --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements.lock

clean: ## remove the environment and caches; runs and data stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
