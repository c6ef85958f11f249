# Each target installs what it needs first: nothing but Python 3.11, make and a C compiler is assumed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_ARGS ?=
FUZZ_SECONDS ?= 60
FAULTS_ARGS ?=
SOAK_ARGS ?=

.PHONY: help install demo run test quick faults soak mutants lint bench fuzz proto docs sbom lock clean

help: ## Show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(STAMP) ## Install into .venv, from the lock file

$(STAMP): requirements-dev.lock pyproject.toml bridge/core/_native.c
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

demo: install ## Play a recorded feed through a bridge with an embedded NATS server
	$(BIN)/factom-bridge demo

run: install ## Run the bridge, with the settings of the environment
	$(BIN)/factom-bridge run

test: install lint ## Everything that CI runs: lint, types, and all tests against real brokers
	$(BIN)/python -m tests.brokers.kafka_jars
	$(BIN)/python -m pytest

quick: install ## The tests that need no broker
	$(BIN)/python -m pytest -m "not brokers" -q

lint: install ## Style, types, import contracts, stale generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python proto/generate.py --check
	$(BIN)/python docs/settings.py --check

faults: install ## Kill, cut, fill and damage: the whole campaign, under an hour; prints a table
	$(BIN)/python -m tests.brokers.kafka_jars
	$(BIN)/python -m tests.faults $(FAULTS_ARGS)

soak: install ## An hour with brokers that come and go: memory, handles and tasks stay; prints a table
	$(BIN)/python -m tests.brokers.kafka_jars
	$(BIN)/python -m tests.faults.soak $(SOAK_ARGS)

mutants: install ## Break the code by hand, promise by promise: a test must turn red for each
	$(BIN)/python -m tests.brokers.kafka_jars
	$(BIN)/python -m tests.mutants

bench: install ## Measure, beside real brokers
	$(BIN)/python -m tests.brokers.kafka_jars
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

fuzz: install ## Feed every reader of bytes with damage, FUZZ_SECONDS each; prints a table
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/fuzz/requirements.lock || echo "no atheris here: without coverage"
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

proto: install ## Generate bridge/pb from proto/
	$(BIN)/python proto/generate.py

docs: install ## Write the settings into README.md and deploy/env.example
	$(BIN)/python docs/settings.py

sbom: install ## Write dist/sbom.json: what the bridge runs on (CycloneDX)
	mkdir -p dist
	$(BIN)/python docs/sbom.py > dist/sbom.json

lock: install ## Resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-annotate --no-header pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-annotate --no-header pyproject.toml --group dev -o requirements-dev.lock

clean: ## Remove what was built and installed; keeps the journal
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
