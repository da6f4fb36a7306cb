# make demo    train a small model on images that several processes decode
# make test    everything that CI checks; make test-as-macos is a part of it
# make chaos   kill, stop and starve workers for 30 minutes, and compare every batch
# make bench   this package and its peers side by side; installs the peers, torch among them
# make docs    write the reference pages and pictures anew, and the documentation as a site into site/
# make clean   remove .venv, .venv-matrix, site and caches
#
# make test-wheel         install the wheel in an environment of its own: the tutorial with the core alone, and a
#                         newcomer's way from a plain Keras sequence to ours; part of make test
# make test-backends      fit on JAX and torch, and Keras's own tests of its adapter for both; installs both
# make test-keras-matrix  fit on the lowest versions that pyproject.toml allows, and on the newest, of Keras 3,
#                         TensorFlow and tf_keras, each in an environment of its own; TensorFlow 2.16 needs a
#                         Python before 3.13
# make test-python-matrix the core suites on each Python from 3.10 on that is found, as python3.10 or with pyenv,
#                         in an environment of its own; others: SUITES="tests/test_payload.py ..."
#
# Each makes .venv and installs what it needs. Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MATRIX := .venv-matrix

.PHONY: demo test pytest-of-processes pytest-of-tools pytest-of-the-rest test-as-macos test-wheel test-backends test-keras-matrix test-python-matrix chaos bench docs clean

demo: $(VENV)/has-demo
	$(BIN)/keras-mpseq demo

test: $(VENV)/has-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(MAKE) --jobs=3 --output-sync=target pytest-of-processes pytest-of-tools pytest-of-the-rest
	$(BIN)/python -m pytest $(OF_TIME)
	$(BIN)/python -m tests.wheel

# Three at a time on two cores, because the first waits most of its time: for timeouts, and for processes to end. By
# itself what tells who waits for whom, training or data: it needs both cores.
OF_TIME := tests/test_monitor.py
OF_PROCESSES := tests/chaos tests/scenarios $(addprefix tests/test_,$(addsuffix .py,channel diagnosis faults identical \
	interrupts lifecycle max_bytes order parent_ends pressure recycling scripts security slots))
OF_TOOLS := $(wildcard $(addprefix tests/test_,$(addsuffix .py,check* cli docs doctor examples integrations lint_* live migrate \
	mutations notebooks packaging profile* ray* reporting rules site* suppressions terminals validator_cli)))

pytest-of-processes:
	$(BIN)/python -m pytest $(OF_PROCESSES)
	$(TEST_AS_MACOS)

pytest-of-tools:
	$(BIN)/python -m pytest $(OF_TOOLS)

pytest-of-the-rest:
	$(BIN)/python -m pytest $(patsubst %,--ignore=%,$(OF_PROCESSES) $(OF_TOOLS) $(OF_TIME))

test-as-macos: $(VENV)/has-dev
	$(TEST_AS_MACOS)

# The suites that matter most, without what only Linux has: see tests/as_macos/sitecustomize.py.
AS_MACOS := $(CURDIR)/tests/as_macos
TEST_AS_MACOS = KERAS_MPSEQ_AS_MACOS=$(AS_MACOS) PYTHONPATH=$(AS_MACOS) \
	$(BIN)/python -m pytest tests/test_slots.py tests/test_channel.py tests/test_identical.py

test-wheel: $(VENV)/has-dev
	$(BIN)/python -m tests.wheel

test-backends: $(VENV)/has-dev,backends
	$(BIN)/python -m pytest tests/test_backends.py tests/test_keras_own.py tests/test_two_processes.py

test-keras-matrix: matrix-lowest matrix-newest

# Old versions warn of what has changed since in Python, so that warnings are no errors there.
matrix-%: $(MATRIX)/%/made
	$(MATRIX)/$*/bin/python -m pip list --disable-pip-version-check | grep -iE '^(keras|tf.keras|tensorflow|numpy) '
	$(MATRIX)/$*/bin/python -m pytest -W default tests/test_fit.py tests/test_keras_own.py tests/test_legacy.py tests/test_resume_data.py

PYTHONS := 3.10 3.11 3.12 3.13
SUITES := $(addprefix tests/test_,$(addsuffix .py,slots channel payload scheduler spec order stateful structures \
	errors identical hooks lifecycle max_bytes pressure security parent_ends interrupts scripts \
	process_map generator_dataset batched fit lint_cases lint_config rules))
# The first that starts: pyenv's python3.10 is there, and fails, also where pyenv has no such version switched on.
INTERPRETER = $(firstword $(foreach python,python$* $(wildcard $(HOME)/.pyenv/versions/$*.*/bin/python), \
	$(shell $(python) -c 'import sys; print(sys.executable)' 2>/dev/null)))

test-python-matrix: $(PYTHONS:%=test-python-%)

# Tests as in CI: warnings are errors.
test-python-%:
	$(if $(INTERPRETER),$(MAKE) $(MATRIX)/python$*/made PYTHON=$(INTERPRETER), \
		@echo "Python $*: skipped, because no interpreter of it was found.")
	$(if $(INTERPRETER),$(MATRIX)/python$*/bin/python -m pytest $(SUITES))

chaos: $(VENV)/has-dev
	$(BIN)/python -m tests.chaos $(or $(ARGS),--minutes 30)

bench: $(VENV)/has-bench
	$(BIN)/python -m tests.bench $(ARGS)

docs: $(VENV)/has-dev
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) $(MATRIX) site .mypy_cache .pytest_cache .ruff_cache .hypothesis

# One stamp for each set of extras: a second run installs nothing until pyproject.toml changes.
$(VENV)/has-%: pyproject.toml | $(VENV)/made
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[$*]'
	touch $@

# A stamp, because a venv whose creation failed half-way has a python, and no pip.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, $(PYTHON) is %d.%d: name another, as in make demo PYTHON=python3.12." % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@

# What the package claims to need, and tf_keras, as requirements of just these versions; and no bounds at all.
VERSIONS_lowest = $(shell sed -n pyproject.toml \
	-e '/^dependencies/,/^]/s/^ *"\(.*\)>=\([0-9.]*\)",/\1==\2.*/p' \
	-e 's/^legacy = \["\(.*\)>=\(.*\)"\]/\1==\2.*/p')
VERSIONS_newest = --upgrade keras tensorflow tf_keras

.PRECIOUS: $(MATRIX)/python%/made
$(MATRIX)/python%/made: pyproject.toml
	$(PYTHON) -m venv --clear $(MATRIX)/python$*
	$(MATRIX)/python$*/bin/python -m pip install --disable-pip-version-check --editable '.[dev]'
	touch $@

.PRECIOUS: $(MATRIX)/%/made
$(MATRIX)/%/made: pyproject.toml
	$(PYTHON) -m venv --clear $(MATRIX)/$*
	$(MATRIX)/$*/bin/python -m pip install --disable-pip-version-check --editable '.[legacy]' \
		pytest psutil $(VERSIONS_$*)
	touch $@
