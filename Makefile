# demo | test | style | bench | docs. Each makes its own .venv and installs what it needs. CI runs test, style and docs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The versions that passed; empty for the newest.
CONSTRAINTS := --constraint constraints.txt
# Of `make demo-ablations`.
SEEDS ?= 0 1 2

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo demo-ablations test test-newest test-lowest test-upstream style bench docs clean

demo: $(INSTALLED)
	$(BIN)/fla demo --out runs/demo

demo-ablations: $(INSTALLED)
	$(BIN)/fla demo --out runs/demo-ablations --ablations --seeds $(SEEDS)

# One process a core, one thread a process.
test: export OMP_NUM_THREADS ?= 1
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8

# The same against the newest releases of everything, in an environment of its own.
test-newest:
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=

# transformers' own test classes on our classes, from the source distribution of the version that is installed.
test-upstream: export OMP_NUM_THREADS ?= 1
test-upstream: $(INSTALLED)
	version=$$($(BIN)/python -c "import transformers; print(transformers.__version__)") && \
	$(BIN)/python -m pip download --quiet --no-deps --no-binary transformers --dest $(VENV) transformers==$$version && \
	tar --extract --gzip --file $(VENV)/transformers-$$version.tar.gz --directory $(VENV) && \
	TRANSFORMERS_SOURCE=$(VENV)/transformers-$$version $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 \
		-m slow tests/modeling/test_upstream_common.py tests/processing/test_upstream_common.py

# The same against the oldest releases that pyproject.toml allows, in another.
test-lowest: .venv-lowest/lowest.txt
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS="--constraint .venv-lowest/lowest.txt"

.venv-lowest/lowest.txt: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip compile --quiet --resolution lowest-direct --extra test \
		--python .venv-lowest/bin/python --output-file $@ pyproject.toml

style: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# Pages and API reference into site/; a warning is an error.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(INSTALLED)
	$(BIN)/mkdocs build

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable ".[test]"
	touch $@

clean:
	rm -rf .venv .venv-newest .venv-lowest runs build site *.egg-info
