# Everything runs in .venv, which makes itself; nothing is installed elsewhere, and the one thing that
# takes minutes, compiling llama.cpp, is done once per machine and kept outside the checkout.
#
#   make venv BACKEND=cpu            do without the GPU (auto, cpu or cuda); .venv keeps to it
#   make venv WHEELHOUSE=/media/usb  install offline, from a folder of packages
#   make venv PYTHON=python3.12      with another Python
#   make test ARGS="-k store"        anything more for pytest, or for the demo
#   make build-cuda ARCH="80;90"     for GPUs that are not here; without ARCH for those that are

PYTHON ?= python3
# What .venv was made with stays, until another one is asked for.
BACKEND ?= $(or $(patsubst .venv/.installed-%,%,$(wildcard .venv/.installed-*)),auto)
WHEELHOUSE ?=
ARGS ?=
ARCH ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := .venv/.installed-$(BACKEND)
# --no-compile: what is imported is compiled then; compiling all of it first takes longer than the rest.
OFFLINE := $(if $(WHEELHOUSE),--no-index --find-links "$(WHEELHOUSE)")
FAST := not slow and not weights and not gpu

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv build-cuda demo test lint check format wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP)  ## install into .venv; the first time on a machine builds llama.cpp (minutes)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "medlocal needs Python 3.11 or newer, and $(PYTHON) is not: make venv PYTHON=python3.12" >&2; exit 3; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing: apt install python3-venv" >&2; exit 3; }
	@$(PYTHON) -m venv .venv
	@rm -f .venv/.installed-*
	@wheel="$$($(BIN)/python tools/build_llama.py --backend $(BACKEND) $(if $(WHEELHOUSE),--wheelhouse "$(WHEELHOUSE)"))" && \
	  echo "installing the packages into .venv, about a minute" && \
	  $(PIP) install --quiet --no-compile --no-deps --force-reinstall $(OFFLINE) "$$wheel" && \
	  $(PIP) install --quiet --no-compile $(OFFLINE) --editable ".[dev]"
	@touch $@

build-cuda:  ## build llama.cpp's wheel with CUDA, for the GPUs found or named by ARCH; offline with WHEELHOUSE
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) tools/build_llama.py --backend cuda \
	  $(if $(ARCH),--cuda-architectures "$(ARCH)") $(if $(WHEELHOUSE),--wheelhouse "$(WHEELHOUSE)")

demo: venv  ## evaluate the demo model on the starter questions and show the report
	@$(BIN)/medlocal demo $(ARGS)

test: venv  ## run every test
	@$(BIN)/python -m pytest $(ARGS)

lint: venv  ## format, lint, types and layers, without changing anything
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint  ## lint, then the quick tests: what to run before a commit
	@$(BIN)/python -m pytest -m "$(FAST)" $(ARGS)

format: venv  ## format the code and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

wheel: venv  ## build medlocal's own wheel into dist/
	@$(PIP) wheel --quiet --no-deps $(OFFLINE) --wheel-dir dist .
	@ls dist/*.whl

clean:  ## remove what make and the tools made here; weights, runs and the llama.cpp wheel stay
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
