# From Python >= 3.11 and a package index to a working tool; `make help` lists the targets.
# Another interpreter: `make venv PYTHON=python3.12`. Another environment: `make test VENV=/somewhere/venv`.

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
# Inside the environment, so that removing the environment removes it too.
STAMP := $(VENV)/.installed
NAME_ANOTHER := name a Python >= 3.11: make venv PYTHON=...

# What a disturbed machine makes the tool refuse is measured again, as its message says; no other failure is.
RERUN := --reruns 2 --only-rerun 'could not be measured repeatably' --durations 10

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv test test-slow test-export demo format wheel clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Create the virtual environment, or update it when pyproject.toml or constraints.txt changed

# The pip that comes with Python >= 3.11 does all that is needed here, so it is not upgraded.
$(STAMP): pyproject.toml constraints.txt
	@python="$(BIN)/python"; test -x "$$python" || python="$(PYTHON)"; \
	command -v "$$python" > /dev/null || { echo "make venv: no $$python here; $(NAME_ANOTHER)" >&2; exit 1; }; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"make venv: %s is Python %d.%d; $(NAME_ANOTHER)" % ((sys.executable,) + sys.version_info[:2]))'
	@test -x $(BIN)/pip || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing what pyproject.toml and constraints.txt name into $(VENV) (a minute or two)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
	@echo "ready: $(BIN)/nas"

test: venv ## Lint, types and the quick tests (under 8 minutes on 2 cores)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	@# Scripts in folders that are no packages: each by itself, with one cache for what they import.
	@for folder in experiments/*/ examples/; do \
		ls $$folder*.py > /dev/null 2>&1 || continue; \
		(cd "$$folder" && MYPYPATH="$(CURDIR)" "$(abspath $(BIN))/mypy" --cache-dir "$(CURDIR)/.mypy_cache/scripts" \
			--config-file "$(CURDIR)/pyproject.toml" .) || exit 1; done
	$(BIN)/pytest -n 2 $(RERUN) -m "not slow"

test-slow: venv ## The slow tests; some need a package index
	@# Those that measure one at a time: whole tables are refused where something else disturbs them.
	$(BIN)/pytest -n 2 $(RERUN) -m "slow and not device"
	$(BIN)/pytest $(RERUN) -m "slow and device"

test-export: venv ## A hundred random networks of every space, exported in every format (hours)
	NAS_EXPORT_NETWORKS=100 $(BIN)/pytest -n 2 tests/test_exported_spaces.py

demo: venv ## The main job on the embedded data set: train, build-lut, search, export
	@PATH="$(abspath $(BIN)):$$PATH" scripts/demo

format: venv ## Apply ruff's safe fixes, then its formatting
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

wheel: venv ## Build the wheel into dist/
	@rm -rf build dist
	@$(BIN)/python -m build --quiet --wheel

clean: ## Remove build outputs and caches; the virtual environment and runs/ stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find nas predictors search_spaces experiments examples tests -name __pycache__ -type d -prune -exec rm -rf {} +
