# `make demo` shows it, `make test` proves it. Everything lives in .venv (and, for races and the zoo, in .bench); nothing else is touched.
PYTHON ?= python3
PYTHON_DEEPSPARSE ?= python3.11
BIN := .venv/bin
# Through the environment, pip pins the build of the package too.
TESTS ?=
ZOO ?=
MACHINE ?=

.PHONY: setup demo check test test-all reproduce reproduce-short bench bench-activations bench-load zoo format clean

setup: .venv/installed  ## make .venv and install zeroskip with what its tests need

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: setup  ## the whole journey on real digits: a measured table, runs/demo/report.html
	$(BIN)/zeroskip sparsify digits --out runs/demo

check: setup  ## lint, format, types, house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house_rules.py

# What Python and pytest compile is kept in __pycache__ whatever the environment says: half of what collecting takes.
test test-all: export PYTHONDONTWRITEBYTECODE =

test: setup  ## the test suite without long sweeps; MACHINE=avx2 (or sse) as if this CPU had no more than that
	MACHINE=$(MACHINE) $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(TESTS)

test-all: setup  ## with long sweeps
	MACHINE=$(MACHINE) $(BIN)/python -m pytest -q -n 2 --dist loadfile $(TESTS)

# ExTensor's matrices are not part of the data sets: with them, `zeroskip reproduce extensor --out runs/reproduce --keep`.
reproduce: setup  ## tables of the papers, measured on the data of ZEROSKIP_DATA: hours; what is found is kept
	$(BIN)/zeroskip reproduce han2015 --out runs/reproduce --keep
	$(BIN)/zeroskip reproduce deep-compression --out runs/reproduce --keep
	$(BIN)/zeroskip reproduce deep-compression --network fc-layers --out runs/reproduce --keep
	$(BIN)/zeroskip reproduce shi2017 --out runs/reproduce --keep
	$(BIN)/zeroskip reproduce eyeriss --seeds 1 --out runs/reproduce --keep
	$(BIN)/zeroskip reproduce minerva --seeds 5 --out runs/reproduce --keep
	$(BIN)/zeroskip reproduce eie --seeds 1 --out runs/reproduce --keep
	$(BIN)/zeroskip reproduce eyeriss-v2 --seeds 1 --out runs/reproduce --keep
	$(BIN)/zeroskip reproduce sparten --seeds 1 --out runs/reproduce --keep
	$(BIN)/zeroskip reproduce --markdown docs/VALIDATION.md

reproduce-short: setup  ## the same on digits, one seed, two minutes; and the rows that need no training
	$(BIN)/zeroskip reproduce --analytic
	$(BIN)/zeroskip reproduce han2015 --network digits --seeds 1 --out runs/reproduce-short
	$(BIN)/zeroskip reproduce deep-compression --network digits --seeds 1 --out runs/reproduce-short

bench: .bench/peers/installed  ## every engine on this machine, raced: about four hours; resumes where it was stopped
	-$(MAKE) .bench/deepsparse/installed
	.bench/peers/bin/zeroskip bench --out benchmarks/results

bench-activations: .bench/peers/installed  ## zeros in inputs: layers, and networks of ZEROSKIP_DATA; about 20 minutes
	.bench/peers/bin/zeroskip bench --activations --out benchmarks/results --markdown docs/ACTIVATIONS.md

.bench/peers/installed: pyproject.toml constraints.txt benchmarks/peers.txt
	test -x .bench/peers/bin/python || $(PYTHON) -m venv .bench/peers
	PIP_CONSTRAINT="constraints.txt benchmarks/peers.txt" .bench/peers/bin/python -m pip install --quiet \
	    --disable-pip-version-check --editable '.[bench]'
	touch $@

# Python 3.8 to 3.11 only; its community licence allows evaluation, not production. Without it the race goes on.
.bench/deepsparse/installed: benchmarks/deepsparse.txt
	test -x .bench/deepsparse/bin/python || $(PYTHON_DEEPSPARSE) -m venv .bench/deepsparse
	.bench/deepsparse/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/deepsparse.txt
	touch $@

# `make zoo ZOO="whisper bert"`: those networks only. What is done for the code as it is now is not run again.
zoo: .bench/zoo/installed  ## networks that others wrote: counts and answers, then times beside other engines; hours; resumes
	.bench/zoo/bin/python -m zoo check $(ZOO)
	.bench/zoo/bin/python -m zoo time $(ZOO)
	.bench/zoo/bin/python -m zoo page

.bench/zoo/installed: pyproject.toml constraints.txt benchmarks/zoo.txt
	test -x .bench/zoo/bin/python || $(PYTHON) -m venv .bench/zoo
	PIP_CONSTRAINT="constraints.txt benchmarks/zoo.txt" .bench/zoo/bin/python -m pip install --quiet \
	    --disable-pip-version-check --editable '.[zoo]'
	touch $@

bench-load: setup  ## seconds from a .zs file of 61 million weights to tensors; Huffman symbols a second
	$(BIN)/python benchmarks/load.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .bench runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
