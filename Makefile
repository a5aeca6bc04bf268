# Each target makes .venv when it is missing or older than what it was made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVE ?= 1
PORT ?= 7860
DEMO_HOME ?= .chimeralab

.PHONY: demo test lint fast screenshots clean

demo: $(VENV)/installed
	$(BIN)/chimeralab demo --home $(DEMO_HOME) --port $(PORT) $(if $(filter 0,$(SERVE)),--no-serve,)

# Everything: rooms, types, lint, unit, parity, cluster and browser tests, on SQLite and on PostgreSQL.
test: $(VENV)/installed-dev lint
	$(BIN)/pytest
	CHIMERALAB_TEST_STORE=postgresql $(BIN)/pytest -m "cluster and not browser"

fast: $(VENV)/installed-dev
	$(BIN)/pytest -m "not cluster and not browser and not parity"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

screenshots: $(VENV)/installed-dev
	CHIMERALAB_SCREENSHOTS=1 $(BIN)/pytest -m browser

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .chimeralab
