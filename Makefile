# `make help` lists the targets. Nothing has to be set up first: each target makes the .venv that it needs.
#
#   PYTHON            the interpreter that makes .venv (default: the first of python3, python3.11 ... that fits)
#   TORCH_INDEX_URL   where torch comes from (default: pip's own configuration; give PyTorch's CPU index for the
#                     small build on Linux x86-64, its installation page names it)
#   VITRINE_*         the service's settings

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.11 python3.12 python3.13 python; do \
	"$$p" -c '$(FITS)' 2>/dev/null && echo "$$p" && break; done)
endif

PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
TORCH_INDEX_URL ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
DATA28 ?= data/fashion.safetensors
DATA64 ?= data/fruits-rgb.safetensors
SMOKE := runs/smoke

# Development defaults of `make serve`, which the environment overrides.
VITRINE_AUTH ?= off
VITRINE_GET_POLICY ?= open
VITRINE_HOST ?= 127.0.0.1

.PHONY: help install format lint types contracts test cover serve train-smoke bench bench-all bench-cached bench-shapes bench-load bench-determinism bench-memory bench-threads bench-png bench-gpu soak compare-presets compare-settings compare-dcgan bars all clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

$(PY):
	@test -n "$(PYTHON)" && "$(PYTHON)" -c '$(FITS)' 2>/dev/null || { \
		echo "Vitrine needs Python 3.11, 3.12 or 3.13; '$(or $(PYTHON),python3)' is $$("$(or $(PYTHON),python3)" -V 2>&1)." >&2; \
		echo "Install one of them, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@echo "== making $(VENV) with $$($(PYTHON) -V)"
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
		echo "This Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# A stamp per set of packages; the larger set contains the smaller one.
$(VENV)/.stamp-runtime: pyproject.toml constraints.txt | $(PY)
	@echo "== installing the service (torch is large: this takes minutes the first time)"
	@$(if $(TORCH_INDEX_URL),$(PIP) --no-deps --index-url "$(TORCH_INDEX_URL)" torch)
	@$(PIP) -e .
	@touch $@

$(VENV)/.stamp-%: $(VENV)/.stamp-runtime
	@echo "== installing what '$*' needs"
	@$(PIP) -e '.[$*]'
	@touch $@

install: $(VENV)/.stamp-test ## make .venv with everything that development needs

format: $(VENV)/.stamp-test ## rewrite the code in the project's format
	@$(PY) -m ruff format
	@$(PY) -m ruff check --fix --select I

lint: $(VENV)/.stamp-test ## format, lint, docstrings, Dockerfile
	@echo "== ruff format, ruff check, pydoclint, hadolint"
	@$(PY) -m ruff format --check
	@$(PY) -m ruff check
	@$(VENV)/bin/pydoclint --quiet service training
	@if [ -x $(VENV)/bin/hadolint ]; then $(VENV)/bin/hadolint Dockerfile; \
		else echo "   hadolint has no package for this machine: the Dockerfile was not linted"; fi

types: $(VENV)/.stamp-test ## mypy --strict over both packages
	@echo "== mypy --strict"
	@$(PY) -m mypy

contracts: $(VENV)/.stamp-test ## who may import whom
	@echo "== import contracts"
	@$(VENV)/bin/lint-imports --no-logo

test: lint types contracts ## all checks and all tests that need no GPU, no containers and no patience
	@echo "== tests"
	@$(PY) -m pytest -q -m "not slow and not gpu and not containers" $(PYTEST_ARGS)

cover: $(VENV)/.stamp-test ## the same tests with branch coverage of both packages
	@$(PY) -m pytest -q -m "not slow and not gpu and not containers" --cov --cov-report=term $(PYTEST_ARGS)

serve: export VITRINE_AUTH := $(VITRINE_AUTH)
serve: export VITRINE_GET_POLICY := $(VITRINE_GET_POLICY)
serve: export VITRINE_HOST := $(VITRINE_HOST)
serve: $(VENV)/.stamp-runtime ## serve models/ on this machine, without keys
	@echo "== serving on http://$(VITRINE_HOST):$${VITRINE_PORT:-8000} (AUTH=$(VITRINE_AUTH), GET_POLICY=$(VITRINE_GET_POLICY))"
	@exec $(PY) -m service

train-smoke: $(VENV)/.stamp-test ## pictures -> data -> 16 steps -> evaluation -> bundle -> pictures, in runs/smoke
	@rm -rf $(SMOKE)
	@echo "== train-smoke: 300 pictures in ten classes, in $(SMOKE)"
	@$(PY) -m training prepare tests/data/fashion-mini $(SMOKE)/mini.safetensors --labels examples/fashion-mnist.labels.json
	@$(PY) -m training train $(SMOKE)/mini.safetensors --out $(SMOKE)/run --kimg 1
	@$(PY) -m training evaluate $(SMOKE)/run --samples 200
	@$(PY) -m training export $(SMOKE)/run --name smoke --models $(SMOKE)/models
	@$(PY) -m training sample $(SMOKE)/models/smoke/1 $(SMOKE)/smoke.png
	@echo "== train-smoke passed"

bench: $(VENV)/.stamp-bench ## pictures per second beside other servers and the limit (makes their environments; 20 minutes)
	@$(PY) -m benchmarks.serving $(BENCH_ARGS)

bench-all: bench bench-cached bench-shapes bench-load bench-determinism bench-memory bench-threads bench-png ## every measurement of the service but the soak (an hour)

bench-cached: $(VENV)/.stamp-bench ## 304 and kept pictures on one core, and a burst of one picture (2 minutes)
	@$(PY) -m benchmarks.serving.cached $(BENCH_ARGS)

bench-shapes: $(VENV)/.stamp-bench ## resolutions, sizes and animations beside the limit (5 minutes)
	@$(PY) -m benchmarks.serving.shapes $(BENCH_ARGS)

bench-load: $(VENV)/.stamp-bench ## latency against load, small requests beside large ones, three times too much (12 minutes)
	@$(PY) -m benchmarks.serving.load_curve $(BENCH_ARGS)
	@$(PY) -m benchmarks.serving.fairness $(BENCH_ARGS)
	@$(PY) -m benchmarks.serving.overload $(BENCH_ARGS)

bench-determinism: $(VENV)/.stamp-bench ## what the same bytes in every batch cost (3 minutes)
	@$(PY) -m benchmarks.serving.determinism $(BENCH_ARGS)

bench-memory: $(VENV)/.stamp-bench ## resident memory beside a bare process with the same model (2 minutes)
	@$(PY) -m benchmarks.serving.memory $(BENCH_ARGS)

bench-threads: $(VENV)/.stamp-bench ## what a new, a kept and a refused answer cost each thread (2 minutes)
	@$(PY) -m benchmarks.serving.threads $(BENCH_ARGS)

bench-png: $(VENV)/.stamp-bench $(VENV)/.stamp-test ## encoders, filters and levels on one core (8 minutes)
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks.serving.png $(BENCH_ARGS)

bench-gpu: $(VENV)/.stamp-bench ## the engine beside the limit and the roofline on a GPU (BENCH_ARGS='--device cpu' tries it without)
	@$(PY) -m benchmarks.serving.gpu $(BENCH_ARGS)

soak: $(VENV)/.stamp-bench ## ten minutes at saturation: throughput, memory, descriptors, threads
	@$(PY) -m benchmarks.serving.soak $(BENCH_ARGS)

compare-presets: $(VENV)/.stamp-bench ## train every preset for equal minutes (DATA28=, DATA64=: packed files; about an hour)
	@$(PY) -m benchmarks.training.presets --data28 "$(DATA28)" --data64 "$(DATA64)" $(BENCH_ARGS)

compare-settings: $(VENV)/.stamp-bench ## train the 28x28 generator with one setting changed at a time (DATA28=; half an hour on two cores)
	@$(PY) -m benchmarks.training.settings --data "$(DATA28)" $(BENCH_ARGS)

compare-dcgan: $(VENV)/.stamp-bench ## this trainer against PyTorch's DCGAN example, at 64x64x3 (DATA64=; half an hour)
	@$(PY) -m benchmarks.training.dcgan --data "$(DATA64)" $(BENCH_ARGS)

bars: $(VENV)/.stamp-bench ## what 5 and 20 minutes of training reach on Fashion-MNIST, three seeds (DATA28=; 75 minutes)
	@$(PY) -m benchmarks.training.bars --data "$(DATA28)" $(BENCH_ARGS)

all: test train-smoke ## what CI runs

clean: ## remove .venv and what the tools left behind (never data/, runs/ or models/)
	rm -rf $(VENV) *.egg-info build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
