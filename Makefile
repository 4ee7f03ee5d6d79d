# Needs python3 (3.11 or newer, with venv) and nothing else; uses uv when it is there.
# PYTHON=… chooses the interpreter, ARGS=… goes to the program that a target runs.

PYTHON ?=
ARGS ?=
BIN := .venv/bin
CODE := src tests scripts $(wildcard bench examples)
ENV = python="$$(PYTHON='$(PYTHON)' scripts/find-python)" && "$$python" scripts/env.py

.DEFAULT_GOAL := help
.PHONY: help setup run test quick long bench fmt lint clients console lock docs

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-8s %s\n", $$1, $$2 }'

setup: ## the environment .venv: the server, the embedded model, this checkout
	@$(ENV)

run: ## set up, and start the server (ARGS="--port 9000")
	@$(ENV) && exec $(BIN)/turnwire serve $(ARGS)

test: ## everything that CI runs
	@$(ENV) --dev
	@$(MAKE) --no-print-directory lint clients
	$(BIN)/pyright
	$(BIN)/pytest -m "not long" -n auto --dist loadfile $(ARGS)

quick: ## the checks and the fast tests, in under a minute
	@$(ENV) --dev
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -m "not slow and not long" -n auto --dist loadfile $(ARGS)

long: ## what takes hours: storms, soaks, fuzzing
	@$(ENV) --dev
	@$(MAKE) --no-print-directory clients
	TURNWIRE_LONG=1 $(BIN)/pytest -m long --timeout 0 $(ARGS)

bench: ## the benchmarks
	@$(ENV) --dev
	$(BIN)/python -m bench $(ARGS)

fmt: ## format the code, and mend what ruff can
	@$(ENV) --dev
	$(BIN)/ruff check --fix --quiet $(CODE) || true
	$(BIN)/ruff format $(CODE)

lint:
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/lint-imports

clients: ## the npm packages of the tests and of the console
	@scripts/clients

console: clients ## build the web console from its source
	cd console && npx --no-install biome check --write . && node build.mjs

docs: ## the documentation: its reference from the code, and the site in build/site
	@$(ENV) --dev
	@$(BIN)/python scripts/docs_reference.py
	@$(BIN)/python scripts/docs_site.py

lock: ## make requirements/*.lock again (UPGRADE=1 for the newest versions)
	@scripts/lock
