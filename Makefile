# Every target works on a bare machine with Python 3.11 or newer and make.
#   PYTHON=python3.11        the interpreter that makes the virtual environment
#   PIP_ARGS="..."           passed to pip, for example to take torch from a source of your own
#   GTC_PYG_WHEELS=FOLDER    ready-made wheels of torch-scatter and torch-sparse (optional)
#   TESTS="tests/nn ..."      of make test-oldest (default: all tests)
PYTHON ?= python3
PIP_ARGS ?=
TESTS ?=
GTC_PYG_WHEELS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help venv sparse demo test test-oldest check docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  variables: PYTHON, PIP_ARGS, GTC_PYG_WHEELS, TESTS (see the first lines of the Makefile)'

venv: $(VENV)/.installed sparse  ## make .venv and install the tested set

$(VENV)/.installed: pyproject.toml constraints.txt gtc_pyg/_version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "gtc-pyg needs Python 3.11 or newer, which '$(PYTHON)' is not: make venv PYTHON=python3.11" >&2; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing the tested set into $(VENV): minutes, most of them for torch (tail -f $(VENV)/pip.log)"
	@rm -f $(VENV)/.sparse
	@$(PIP) install $(PIP_ARGS) -c constraints.txt -e ".[all,dev]" >$(VENV)/pip.log 2>&1 || { \
		tail -n 30 $(VENV)/pip.log >&2; \
		echo "The installation failed; the whole of it is in $(VENV)/pip.log" >&2; exit 1; }
	@echo "Installed. For commands of your own: source $(BIN)/activate"
	@touch $@

# From ready-made wheels alone, and never required: what does not fit is left out with a note.
sparse: $(VENV)/.installed
	@if [ -z "$(GTC_PYG_WHEELS)" ] || [ "$$(cat $(VENV)/.sparse 2>/dev/null)" = "$(GTC_PYG_WHEELS)" ]; \
	then :; \
	elif $(PIP) install --no-index --no-deps --only-binary :all: -c constraints.txt \
		--find-links "$(GTC_PYG_WHEELS)" torch-scatter torch-sparse >>$(VENV)/pip.log 2>&1 \
		&& $(BIN)/python -c 'import torch_scatter, torch_sparse' >>$(VENV)/pip.log 2>&1; \
	then echo "$(GTC_PYG_WHEELS)" >$(VENV)/.sparse; \
	else $(PIP) uninstall --yes torch-scatter torch-sparse >>$(VENV)/pip.log 2>&1; \
		echo "Going on without torch-scatter and torch-sparse: no wheels in '$(GTC_PYG_WHEELS)' fit here."; \
	fi

demo: venv  ## train LightGCN, FREEDOM and GTC on planted data: table, pictures in outputs/
	@$(BIN)/python examples/quickstart.py

test: venv  ## run the tests
	@$(BIN)/python -m pytest

test-oldest:  ## run the tests with the oldest versions of what we need, in .venv-oldest
	@$(PYTHON) -m venv .venv-oldest
	@for set in '-c constraints.txt -e .[all,dev]' '-r constraints-oldest.txt'; do \
		.venv-oldest/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) $$set || exit 1; \
	done
	@.venv-oldest/bin/python -m pip check
	@.venv-oldest/bin/python -m pytest $(TESTS)

check: venv  ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: venv  ## build the pages into docs/_build/html
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

clean:  ## remove .venv, built pages and caches (outputs/ stays)
	rm -rf $(VENV) .venv-oldest docs/_build build dist *.egg-info .coverage htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find gtc_pyg tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
