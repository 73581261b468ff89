# `make demo` and `make test` set up their own virtual environment on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow check docs bench stress clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed  ## four real experiments and their report, in about three minutes
	$(BIN)/drop demo

test: $(VENV)/installed  ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: $(VENV)/installed  ## what takes minutes: real deployments, clusters and benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slow and not deployment' --maxfail 2 --numprocesses auto --dist worksteal $$(grep -rl 'mark\.slow' tests)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m deployment --maxfail 2 --numprocesses auto --dist loadfile $$(grep -rl 'mark\.deployment' tests)

check: $(VENV)/installed  ## what CI runs beside the tests: lint, format, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: $(VENV)/installed  ## the documentation site in build/site, built strictly, its links checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	$(BIN)/python docs/site/check.py build/site
	@echo "python -m http.server --directory build/site shows it; the pages can also be opened as files"

# A Python of 3.13 or newer with blazefl, which benchmarks/peers.py compares with: BLAZEFL=.../python
BLAZEFL ?=

bench: $(VENV)/installed  ## the benchmarks in their short form, in a quarter of an hour
	$(BIN)/python benchmarks/round.py --repeats 3
	$(BIN)/python benchmarks/peers.py --turns 2 --rounds 5 $(addprefix --blazefl ,$(BLAZEFL))
	$(BIN)/python benchmarks/aggregate.py --quick
	$(BIN)/python benchmarks/distill.py --quick
	$(BIN)/python benchmarks/engines.py --repeats 5
	$(BIN)/python benchmarks/scale.py --rounds 20

stress: $(VENV)/installed  ## configurations, kills, hostile replies and full disks, in half an hour
	$(BIN)/python benchmarks/stress.py

clean:  ## forget the virtual environment and all caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
