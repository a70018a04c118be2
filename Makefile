# Every target may be run again at any time, as root or as an ordinary user.
PYTHON ?=
VENV := .venv
MEMBERS := core/pyproject.toml $(wildcard plugins/*/pyproject.toml)

.PHONY: demo test lint bench clean lock setup setup-test
.DEFAULT_GOAL := demo

demo: setup  ## Start the platform, run a batch and an interactive session, and clean up.
	@scripts/demo.sh $(VENV)/bin

test:  ## Set up what the tests need, run all of them, and clean up.
	@scripts/test.sh

lint: setup-test  ## Style, types, and who may import whom.
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" scripts/lint.sh

bench: setup-test  ## Measure, each thing beside its floor in one run.
	@$(VENV)/bin/python -m tests.bench

clean:  ## Remove everything that the other targets made.
	rm -rf .venv .venv-3.* .cache .parts dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find core plugins tests kernels -name __pycache__ -type d -prune -exec rm -rf {} +
	find core plugins -name '*.egg-info' -prune -exec rm -rf {} +

lock:  ## Write the locks anew.
	scripts/lock.sh

setup: $(VENV)/.ready
setup-test: $(VENV)/.ready-test

$(VENV)/.ready: requirements.lock $(MEMBERS)
	@echo "Setting up $(VENV) (once; half a minute) ..."
	@scripts/setup.sh $(VENV) run $(PYTHON)
	@touch $@

$(VENV)/.ready-test: requirements-test.lock $(VENV)/.ready
	@echo "Setting up $(VENV) for the tests (once) ..."
	@scripts/setup.sh $(VENV) test $(PYTHON)
	@touch $@
