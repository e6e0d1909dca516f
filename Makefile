# make demo: the whole story on this machine.    make test: everything the project promises, proven.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= test
# Four workers, a file at a time: half the tests wait for processes of their own.
PYTEST := $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=25
STAMP := $(VENV)/.installed-$(EXTRAS)

TE := $(VENV)/transformer_engine

.PHONY: demo test unlinted-test lint engine-test transformer-engine docs picture env clean
demo: env
	$(BIN)/moe demo

test: lint unlinted-test

unlinted-test: env
	$(PYTEST) $(PYTEST_ARGS)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What megatron-core itself decides: CI runs these on the other supported version as well.
engine-test: env
	$(PYTEST) -m engine $(PYTEST_ARGS)

# Transformer Engine's Python modules without its CUDA libraries, for tests of kernel set `te` on a
# CPU: in a folder of their own, since megatron-core fails on a Transformer Engine without libraries.
transformer-engine: $(TE)/.installed

$(TE)/.installed: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --target $(TE) \
	  transformer_engine==2.20.2 einops ml_dtypes onnx onnx-ir onnxscript \
	  $$($(BIN)/python -c 'import triton' 2>/dev/null || echo triton==3.9.0)
	@touch $@

# The documentation site, docs/_build/html/index.html. A warning is an error.
docs:
	@$(MAKE) --no-print-directory env EXTRAS=$(EXTRAS),docs
	$(BIN)/python -m sphinx -W --keep-going --nitpicky -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

# docs/images/report.png, from the report of `make demo`.
picture: env
	$(BIN)/python docs/make_picture.py

# Evidence of this machine's card, into benchmarks/results/: all of it (25 minutes at most), or PART=2
# (8 at most). What has passed is not run again. DEVICE=cpu rehearses it, small, elsewhere.
DEVICE ?= cuda
GPU_EXTRAS ?= test,hub
.PHONY: gpu
gpu:
	@$(MAKE) --no-print-directory env EXTRAS=$(GPU_EXTRAS)
	$(BIN)/python -m benchmarks.gpu_evidence --device $(DEVICE) $(PART:%=--part %)

# Dense and sparse models at equal FLOPs, a law, and the largest predicted before it runs: an hour on
# two cores at most. DESIGNS=short rehearses it. docs/evidence/study.md has a result.
DESIGNS ?= full
STUDY ?= study
.PHONY: study
study: env
	$(BIN)/python -m benchmarks.study --designs $(DESIGNS) --out $(STUDY)

env: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	  || { echo "moescale needs Python 3.11 or 3.12: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv; } \
	  || { echo "venv is missing: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf $(VENV)
