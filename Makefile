# Two commands on a machine with python3 (3.11 or newer), its venv module and make:
#   make demo    make test
PY ?= python3
BIN := .venv/bin

# Where compiled modules are forbidden, every process would compile them anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: install demo test test-all guard check bench lock build clean

install: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "dpkit needs Python 3.11 or newer: make PY=python3.12 …"; exit 1; }
	@test -x $(BIN)/pip || $(PY) -m venv .venv \
	  || { rm -rf .venv; echo "the venv module is missing: apt install python3-venv"; exit 1; }
	@echo "installing dpkit and its pinned dependencies into .venv"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Tests run side by side, one on each core: threads of their own would only wait.
test test-all guard: export OPENBLAS_NUM_THREADS = 1
test test-all guard: export OMP_NUM_THREADS = 1

demo: install
	$(BIN)/dpkit demo

test: install
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile

test-all: install
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 -m "slow or not slow"

guard: install
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 -m guard

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check

bench: install
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m experiments.bench.training --markdown docs/bench/training.md \
	  --plot docs/images/training.png
	$(BIN)/python -m experiments.bench.noise --markdown docs/bench/noise.md
	$(BIN)/python -m experiments.bench.accounting --markdown docs/bench/accounting.md
	$(BIN)/python -m experiments.bench.ledger --folder . --markdown docs/bench/ledger.md
	$(BIN)/python -m experiments.bench.density --markdown docs/bench/density.md \
	  --plot docs/images/density_queries.png

lock: install
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip compile -q --universal --all-extras --no-annotate --no-header \
	  --python-version 3.11 --no-emit-package dpkit-jax pyproject.toml -o constraints.txt

build: install
	$(BIN)/python -m build

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
