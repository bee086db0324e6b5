# The two commands of the README are `make demo` and `make test`; both set up .venv first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
DEMO_DIR ?= runs/fashion_mnist

.PHONY: demo test test-fast lint format bench clean

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(RUN) tools/compress.py --recipe=configs/fashion_mnist_prune50_w8a8.yaml --workdir=$(DEMO_DIR)

test: $(READY)
	$(RUN) -m pytest -n 2 --dist=worksteal tests

test-fast: $(READY)
	$(RUN) -m pytest -n 2 --dist=worksteal -m 'not slow' tests

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(READY)
	$(RUN) benchmarks/baselines.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
