# make demo    train a small model on images that several processes decode
# make test    everything that CI checks
# make bench   this package and its peers side by side; installs the peers, torch among them
# make docs    write the reference pages anew
# make clean   remove .venv and caches
#
# Each makes .venv and installs what it needs. Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench docs clean

demo: $(VENV)/has-demo
	$(BIN)/keras-mpseq demo

test: $(VENV)/has-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest

bench: $(VENV)/has-bench
	$(BIN)/python -m tests.bench $(ARGS)

docs: $(VENV)/has-dev
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# One stamp for each set of extras: a second run installs nothing until pyproject.toml changes.
$(VENV)/has-%: pyproject.toml | $(VENV)/made
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[$*]'
	touch $@

# A stamp, because a venv whose creation failed half-way has a python, and no pip.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, $(PYTHON) is %d.%d: name another, as in make demo PYTHON=python3.12." % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@
