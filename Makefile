# Every verb works on a fresh machine with Python >= 3.11, pip and make: it makes .venv first, from the committed locks.
# The stamps keep that quick: nothing is looked at again until a lock or pyproject.toml changes.

PYTHON ?= python3
UV_VERSION := 0.13.9
# Read as an archive for its price map, never installed; 1.107.x was compromised.
LITELLM_VERSION := 1.109.1
METERGRAPH_VERSION := 0.7.4
VENV := .venv
BIN := $(VENV)/bin
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv

# uv does not read pip's settings; whoever has set an index or a certificate for pip means uv as well.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif

# A lock is a complete list, so nothing is resolved again; wheels only, since some of these build for many minutes.
INSTALL := $(UV) pip install --quiet --no-deps --require-hashes --only-binary :all:
EDITABLE := $(UV) pip install --quiet --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.PHONY: help setup check test test-slow demo prices lock docs clean

help:  ## Show these verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## *' '{printf "make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/stamp-dev  ## Make .venv with everything the other verbs need

check: $(VENV)/stamp-dev  ## Lint, format, types, layers, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generate.py --check

test: $(VENV)/stamp-dev  ## The quick tests, with branch coverage
	$(BIN)/pytest --cov --cov-report=term

test-slow: $(VENV)/stamp-dev  ## The soaks and crash loops that `test` leaves out
	$(BIN)/pytest -m slow --timeout 3600

demo: $(VENV)/stamp-demo  ## A real batch through a real small model, killed once on the way
	$(BIN)/batchway demo

prices: $(VENV)/stamp-dev  ## Make the price tables again from the pinned sources, and show what changed
	$(PYTHON) -m pip download --quiet --no-deps --only-binary :all: --dest build \
		litellm==$(LITELLM_VERSION) metergraph-core==$(METERGRAPH_VERSION)
	$(BIN)/python scripts/make_prices.py build/litellm-$(LITELLM_VERSION)-*.whl --date $$(date -u +%F)
	$(BIN)/python scripts/compare_prices.py build/litellm-$(LITELLM_VERSION)-*.whl \
		build/metergraph_core-$(METERGRAPH_VERSION)-*.whl --date $$(date -u +%F)
	git --no-pager diff --unified=0 -- src/batchway/billing/tables tests/unit/samples/prices.tsv

lock: $(VENV)/stamp-uv  ## Resolve the locks again (LOCK_ARGS=--upgrade moves everything)
	$(call COMPILE,requirements-dev.lock,--group dev)
	$(call COMPILE,requirements-demo.lock,--group build --extra demo --constraints requirements-dev.lock)
	$(call COMPILE,requirements.lock,--constraints requirements-dev.lock)

docs: $(VENV)/stamp-dev  ## Write the generated docs again
	$(BIN)/python docs/generate.py

clean:  ## Remove .venv and everything made by the other verbs
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf tests/journeys/node/node_modules
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call COMPILE,lock,what goes in)
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock' $(LOCK_ARGS) $(2) pyproject.toml --output-file $(1)

# Without pip inside: a Debian python3 has no ensurepip, and the pip outside can install into it.
$(VENV)/stamp-uv: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Batchway needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/stamp-dev $(VENV)/stamp-demo: $(VENV)/stamp-%: requirements-%.lock pyproject.toml $(VENV)/stamp-uv
	$(INSTALL) --requirements $<
	$(EDITABLE)
	@touch $@
