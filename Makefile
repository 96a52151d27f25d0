# Everything a fresh machine needs is Python >= 3.11, pip and make. `make help` lists the targets.
PYTHON ?= python3
JOBS   ?= 2
RUN    ?= runs/quickstart

PY     := .venv/bin/python
CONFIG := experiments/quickstart.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PINNED         := $(wildcard constraints/py$(PYTHON_VERSION).txt)
# A Python newer than every file takes the newest file.
CONSTRAINTS    := $(or $(PINNED),$(lastword $(sort $(wildcard constraints/py3.*.txt))))
STAMP          := .venv/.ready-$(PYTHON_VERSION)

# Some systems split the pip that venv needs (ensurepip) from Python: their own pip then puts one into .venv.
NEW_VENV := if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv --clear .venv; \
	else $(PYTHON) -m venv --clear --without-pip .venv && $(PYTHON) -m pip --python $(PY) install --quiet pip; fi

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: PYTHON=$(PYTHON)  JOBS=$(JOBS) (runs at once in the demo)  RUN=$(RUN) (the demo's directory)"

.PHONY: demo
demo: setup ## Train the quickstart sweep on real text and report its compute gap (5 to 15 minutes on two cores)
	$(PY) -m mdm_jax.data.prepare --config $(CONFIG)
	$(PY) -m isoflop.plan --config $(CONFIG) --out $(RUN)
	$(PY) -m isoflop.run $(RUN) --jobs $(JOBS)
	$(PY) -m analysis.report $(RUN)

.PHONY: test
test: lint ## Lint, types and the default tests
	$(PY) -m pytest -n 2 --dist worksteal

.PHONY: test-slow
test-slow: setup ## The tests that take minutes
	$(PY) -m pytest -m slow

.PHONY: lint
lint: setup ## ruff (lint and format) and pyright
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)

.PHONY: format
format: setup ## Let ruff rewrite what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

.PHONY: bench
bench: setup ## Measure this machine for docs/performance.md, about an hour (TORCH=PYTHON adds PyTorch; let nothing else run)
	$(PY) -m benchmarks.train_step $(if $(TORCH),--torch $(TORCH))
	$(PY) -m benchmarks.data_pipeline
	$(PY) -m benchmarks.sweep --warm
	$(PY) -m benchmarks.start_up
	$(PY) -m benchmarks.analysis_speed
	$(PY) -m mdm_jax.data.prepare --config $(CONFIG)
	$(PY) -m benchmarks.validation

.PHONY: notebooks
notebooks: setup ## Execute the notebooks and write each .ipynb anew from its .py
	$(PY) tests/analysis/test_notebooks.py

.PHONY: constraints
constraints: setup ## Pin what .venv holds into constraints/ (after a green `make test`)
	$(PY) constraints/pin.py

.PHONY: setup
setup: $(STAMP) ## Create .venv with the pinned versions, if it is not there yet

$(STAMP): pyproject.toml $(CONSTRAINTS) | python-is-new-enough
	$(if $(PINNED),,@echo "No versions are pinned for Python $(PYTHON_VERSION) yet: using $(CONSTRAINTS), untested here.")
	@echo "Setting up .venv for Python $(PYTHON_VERSION) with $(CONSTRAINTS): one to three minutes, once."
	@rm -f .venv/.ready-*
	@$(PY) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(PYTHON_VERSION)")' 2>/dev/null \
		|| { $(NEW_VENV); }
	$(PY) -m pip install -qq --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

.PHONY: python-is-new-enough
python-is-new-enough:
	@case "$(PYTHON_VERSION)" in \
	3.1[1-9]|3.[2-9][0-9]) ;; \
	*) echo "mdm-jax needs Python 3.11 or newer; $(PYTHON) is $(or $(PYTHON_VERSION),not a Python that runs)." \
		"Name another: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.11" >&2; exit 1 ;; \
	esac

.PHONY: clean
clean: ## Remove .venv, caches and builds (runs/ and data/ stay)
	rm -rf .venv .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
