# demo | test | style | bench: CI runs exactly these. Each makes its own .venv and installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo demo-ablations test style bench clean

demo: $(INSTALLED)
	$(BIN)/fla demo --out runs/demo

demo-ablations: $(INSTALLED)
	$(BIN)/fla demo --out runs/demo --ablations

test: $(INSTALLED)
	$(BIN)/python -m pytest

style: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
