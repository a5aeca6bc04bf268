# Each target makes .venv when it is missing or older than what it was made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported; compiling all that is installed would take most of a minute.
INSTALL := $(BIN)/pip install --quiet --no-compile -c constraints.txt
SERVE ?= 1
PORT ?= 7860
DEMO_HOME ?= .chimeralab

.PHONY: demo test lint fast catalogue screenshots clean

demo: $(VENV)/installed
	$(BIN)/chimeralab demo --home $(DEMO_HOME) --port $(PORT) $(if $(filter 0,$(SERVE)),--no-serve,)

# Everything: types, lint, rooms, unit and parity tests; then the cluster and the browser, on SQLite; then on PostgreSQL what
# keeps runs and sweeps in the store through a cluster that is killed (the store's own tests use both already).
# Two processes each, a file of the cluster's whole in one: its tests share a cluster.
test: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m "not cluster and not browser"
	$(BIN)/pytest -q -n 2 --dist loadfile -m "cluster or browser"
	CHIMERALAB_TEST_STORE=postgresql $(BIN)/pytest -q -n 2 --dist loadfile -m either_store

fast: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m "not cluster and not browser and not parity"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What the tests prove of every mixer and feed-forward, as docs/catalogue.md. A part of them renews a part of the page:
# pytest -k mamba2 --catalogue docs/catalogue.md
catalogue: $(VENV)/installed-dev
	rm -f docs/catalogue.md
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m "oracle or contract or trains" --catalogue docs/catalogue.md

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
