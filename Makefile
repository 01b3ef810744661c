# `make quickstart` and `make test` are all a newcomer needs; both make .venv first if it isn't there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
QUICKSTART := runs/quickstart

.PHONY: setup quickstart test test-lowest wheel lint check docs bench clean
.DELETE_ON_ERROR:

setup: $(VENV)/installed

# opencv-python-headless, which albumentations brings, and opencv-python share one folder; the last one written
# wins, and only opencv-python can open a window. So it is written once more at the end.
$(VENV)/installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps opencv-python
	touch $@

quickstart: $(VENV)/installed
	$(BIN)/mobiledet quickstart

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto

# All direct dependencies at the lowest versions that setup.py allows; PYTHON must be 3.10 or 3.11, for which numpy 1.26
# has wheels. The old releases use what newer ones of their own dependencies warn of; that is not ours to mend.
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST) --resolution lowest-direct --editable ".[dev]"
	$(LOWEST)/bin/uv pip uninstall --python $(LOWEST) opencv-python-headless
	$(LOWEST)/bin/uv pip install --python $(LOWEST) --resolution lowest-direct --reinstall-package opencv-python --editable .
	$(LOWEST)/bin/python -m pytest -n auto -W default::DeprecationWarning

wheel: $(VENV)/installed
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

# site/, without the network. The variable silences an advertisement, not a warning of ours.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(VENV)/installed
	$(BIN)/python benchmarks/train_speed.py

clean:
	rm -rf $(VENV) $(LOWEST) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
