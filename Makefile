# Each target makes .venv when it is missing or older than what it was made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported; compiling all that is installed would take most of a minute.
INSTALL := $(BIN)/pip install --quiet --no-compile -c constraints.txt
SERVE ?= 1
PORT ?= 7860
DEMO_HOME ?= .chimeralab
# `make gpu` takes a Python that has torch, triton and pytest: the machine's own, or GPU_PYTHON=.venv/bin/python.
GPU_PYTHON ?= python3
GPU_PROCESSES ?= 1
GPU_OPTIONS ?=
GPU_LOGS ?= $(CURDIR)/.chimeralab/gpu

.PHONY: demo test lint fast gpu gpu-cases gpu-sizes catalogue screenshots clean

demo: $(VENV)/installed
	$(BIN)/chimeralab demo --home $(DEMO_HOME) --port $(PORT) $(if $(filter 0,$(SERVE)),--no-serve,)

# Everything: types, lint, rooms, unit and parity tests; then the cluster and the browser, on SQLite; then on PostgreSQL what
# keeps runs and sweeps in the store through a cluster that is killed (the store's own tests use both already).
# Two processes each, a file of the cluster's whole in one: its tests share a cluster.
test: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal -m "not cluster and not browser"
	$(BIN)/pytest -q -n 2 --dist loadfile -m "cluster or browser"
	CHIMERALAB_TEST_STORE=postgresql $(BIN)/pytest -q -n 2 --dist loadfile -m either_store

fast: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal -m "not cluster and not browser and not parity"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every case that wants a GPU. What begins, ends and fails is appended to run.log as it happens, so that a run that is cut
# short has told it; junit.xml and sizes.xml come at the end. More than one process needs pytest-xdist.
gpu:
	mkdir -p $(GPU_LOGS)
	$(GPU_PYTHON) tests/entry_points.py $(GPU_LOGS)/site
	rm -f $(GPU_LOGS)/run.log
	$(MAKE) --keep-going gpu-cases gpu-sizes

# The machine's pytest may lack the plugins that pyproject.toml has options for.
GPU_PYTEST = PYTHONPATH=$(GPU_LOGS)/site:$(CURDIR)/platform:$(CURDIR)/plugins:$(CURDIR)/kernels:$(CURDIR)/webui:$$PYTHONPATH OMP_NUM_THREADS=1 \
	$(GPU_PYTHON) -m pytest -v -o addopts=-ra -p no:cacheprovider --run-log $(GPU_LOGS)/run.log $(GPU_OPTIONS)
GPU_SIZES := tests/kernels/gpu_size_cases.py
GPU_CASES := $(wildcard tests/kernels/gpu_*_cases.py tests/kernels/triton*_cases.py) tests/runs/cuda_cases.py

gpu-cases:
	$(GPU_PYTEST) --junitxml $(GPU_LOGS)/junit.xml \
		$(if $(filter-out 1,$(GPU_PROCESSES)),-n $(GPU_PROCESSES) --dist worksteal --max-worker-restart 100) \
		$(filter-out $(GPU_SIZES),$(GPU_CASES))

# Tensors beyond 2³¹ elements: one at a time.
gpu-sizes:
	$(GPU_PYTEST) --junitxml $(GPU_LOGS)/sizes.xml $(GPU_SIZES)

# What the tests prove of every mixer and feed-forward, as docs/catalogue.md. A part of them renews a part of the page:
# pytest -k mamba2 --catalogue docs/catalogue.md
catalogue: $(VENV)/installed-dev
	rm -f docs/catalogue.md
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal -m "oracle or contract or trains" --catalogue docs/catalogue.md

screenshots: $(VENV)/installed-dev
	CHIMERALAB_SCREENSHOTS=1 $(BIN)/pytest -m browser

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[dev]"
	touch $(VENV)/installed $@

clean:
	rm -rf $(VENV) .chimeralab
