# Each target does all its own set-up in .venv; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where the wheel with the compiled data plane is installed, for the benchmarks.
COMPILED := .cache/compiled

# mypyc leaves its modules beside the sources, where they would be imported in their place: so the
# wheel is built from a copy.
define compiled_wheel
	rm -rf .cache/wheel-src && mkdir -p .cache/wheel-src
	cp -r proxy pyproject.toml README.md LICENSE .cache/wheel-src/
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(BIN)/pip wheel --quiet --no-deps --wheel-dir $(1) .cache/wheel-src
	rm -rf .cache/wheel-src
endef

.DEFAULT_GOAL := help
.PHONY: help demo test test-compiled lint format bench fuzz wheel schemas clean

# Tests run in so many processes, each file in one of them: much of their time is waiting (two cores are
# busy to 70% with two processes, to 85% with three).
JOBS ?= 3

# How long `make fuzz` looks at each parser.
FUZZ_S ?= 120

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## the main job, end to end, in under a minute: mirror, pair, log, ramp, kill, roll back, compare
	$(BIN)/understudy demo

test: lint ## linters, types, import rules and all tests (a real Kafka where java and mvn are)
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test-compiled: $(VENV)/.test $(COMPILED)/.done ## the tests of what is compiled again, against the wheel compiled by mypyc
	PYTHONPATH=$(CURDIR)/$(COMPILED)/site:$(CURDIR) UNDERSTUDY_COMPILED=1 \
		$(BIN)/pytest --override-ini pythonpath= --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder \
		tests/comparison tests/dataplane tests/hostile tests/journal tests/pairs tests/routing tests/wire \
		tests/recorder/test_evidence.py tests/recorder/test_expansion.py tests/recorder/test_kafka_batch.py tests/recorder/test_kafka_messages.py

lint: $(VENV)/.test ## style, types and import rules alone
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test ## format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench $(COMPILED)/.done ## measure every claim beside other proxies, in some 75 minutes; OPTIONS=--quick in 3 (needs nginx, wrk and a C compiler)
	UNDERSTUDY_PYTHON=$(CURDIR)/$(COMPILED)/bin/python $(BIN)/python -m benchmarks $(OPTIONS)

fuzz: $(VENV)/.fuzz ## look for bytes that break a law of the parsers, FUZZ_S seconds each (Linux)
	set -e; for target in requests bodies answers forwarded; do \
		$(BIN)/python -m tests.hostile.fuzz_$$target -max_total_time=$(FUZZ_S); \
	done

wheel: $(VENV)/bin/python ## build the wheel with the compiled data plane into dist/ (needs a C compiler)
	$(call compiled_wheel,dist)

schemas: $(VENV)/.test ## write the JSON Schemas of config, record, label and decision to config/
	$(BIN)/understudy schema config > config/config.schema.json
	$(BIN)/understudy schema pair > config/pair.schema.json
	$(BIN)/understudy schema label > config/label.schema.json
	$(BIN)/understudy schema decision > config/decision.schema.json

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Understudy needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name one with: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[demo,test]'
	@touch $@

$(VENV)/.fuzz: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[test,fuzz]'
	@touch $@

$(COMPILED)/.done: pyproject.toml $(shell find proxy -name '*.py') | $(VENV)/bin/python
	rm -rf $(COMPILED)
	$(call compiled_wheel,$(COMPILED)/dist)
	$(PYTHON) -m venv --without-pip $(COMPILED)
	$(BIN)/pip --python $(COMPILED)/bin/python install --quiet $(COMPILED)/dist/*.whl
	$(BIN)/pip install --quiet --no-deps --target $(COMPILED)/site $(COMPILED)/dist/*.whl
	@touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[bench]'
	@touch $@
