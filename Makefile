# `make demo` and `make test` set up what they need by themselves and reuse it afterwards.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RECIPE := domains/support/recipe.yaml

.PHONY: demo annotate test check lint types layers docs clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY) ## the main job on the embedded domain: data -> SFT -> rankings -> reward -> DPO and PPO -> report
	$(BIN)/plumbline run $(RECIPE) --run demo --simulate

annotate: $(READY) ## the annotation app on the demo's run
	$(BIN)/plumbline run $(RECIPE) --run demo --until sample
	$(BIN)/plumbline annotate $(RECIPE) --run demo

test: $(READY) ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: lint types layers

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

docs: $(READY) ## regenerate the recipe reference from the schema
	$(BIN)/python -m plumbline.reference docs/recipe.md

clean:
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache
