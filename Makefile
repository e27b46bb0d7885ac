# Both `make demo` and `make test` work from a clean clone with Python 3.10+, a C++ compiler and the
# package registry. Everything is installed into $(VENV); a stamp file makes the set-up idempotent.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n auto

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# torch.utils.cpp_extension looks for ninja on the PATH.
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: setup demo test rules algebra fuzz honest lint size clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	PYTHON=$(BIN)/python tools/demo.sh

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Every rule on 200 random instances (the tests take 25), and its page of the documentation.
rules: $(STAMP)
	$(BIN)/python -m pytest -m slow tests/rules $(PYTEST_ARGS)

algebra: $(STAMP)
	$(BIN)/python tools/algebra_docs.py

# N random models from SEED, the first N/6 of them built; failures are shrunk into files.
N ?= 200
SEED ?= 1
fuzz: $(STAMP)
	cd tests && $(abspath $(BIN))/python -m fuzz.fuzz --models $(N) --builds $$(($(N) / 6)) --seed $(SEED)

# No honest candidate may be rejected, over fifty seeds of the inputs each (also part of `make test`).
honest: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/trust/test_candidates.py -k fifty_seeds

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pyright

size: $(STAMP)
	$(BIN)/python tools/size.py

clean:
	rm -rf out build dist .pytest_cache .ruff_cache .hypothesis
