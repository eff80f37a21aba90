# demo | test | style | bench | docs: CI runs exactly these. Each makes its own .venv and installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Of `make demo-ablations`.
SEEDS ?= 0 1 2

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo demo-ablations test style bench docs clean

demo: $(INSTALLED)
	$(BIN)/fla demo --out runs/demo

demo-ablations: $(INSTALLED)
	$(BIN)/fla demo --out runs/demo-ablations --ablations --seeds $(SEEDS)

test: $(INSTALLED)
	$(BIN)/python -m pytest

style: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests/test_docstrings.py

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# The API reference, from the docstrings, into site/.
docs: $(INSTALLED)
	$(BIN)/python docs/build_reference.py site

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) runs build site *.egg-info
