PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_ARGS ?= -c ci/constraints.txt

.PHONY: train test check format install clean

train: $(VENV)/installed  ## Train the embedded student from the embedded teacher (ARGS="--seed 1" adds flags)
	$(BIN)/python -m reopold_vl.train $(ARGS)

test: $(VENV)/installed-dev  ## Run the tests (ARGS="-k resume" adds flags)
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/installed-dev  ## Lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest tests/test_architecture.py

format: $(VENV)/installed-dev  ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/installed  ## Create the virtual environment and install

clean:  ## Remove the virtual environment (never a run)
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml ci/constraints.txt
	@echo "installing torch, transformers and what else is needed into $(VENV): some minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e ".[dev,demo]"
	touch $@
