# `make quickstart` and `make test` are all a newcomer needs; both make .venv first if it isn't there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUICKSTART := runs/quickstart

.PHONY: setup quickstart test lint check docs bench clean
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
	rm -rf $(VENV) build site *.egg-info .mypy_cache .ruff_cache .pytest_cache
