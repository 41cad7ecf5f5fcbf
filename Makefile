# The one entry. The first use of any target makes .venv and installs what is missing (tools/bootstrap.py).
PYTHON ?= python3
BIN := .venv/bin
SEEDS ?= 200
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help venv demo check unit inside test e2e soak sim bench golden docs lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

venv:
	@$(PYTHON) tools/bootstrap.py

demo: venv  ## a Service of real Pods, live, in under 20 seconds
	@$(BIN)/kubesvc demo

check: venv  ## format, lint, types, and the import picture
	$(BIN)/ruff format --check src tests tools bench
	$(BIN)/ruff check src tests tools bench
	$(BIN)/mypy
	$(BIN)/python tools/imports.py
	$(BIN)/python tools/rules.py

unit: venv  ## seconds, unprivileged, offline
	$(BIN)/python -m pytest -rs -m "not e2e and not slow and not golden and not soak" tests

e2e: venv  ## real packets, real processes, stock clients
	$(BIN)/python -m pytest -rs -m "e2e and not soak" tests

golden: venv  ## replay the recordings of a real API server (beside the checkout, in ../shared)
	$(BIN)/python -m pytest -rs -m "golden and not soak" tests

test: check sim  ## what CI runs: check, 200 histories, every test but the soak
	@# the second mostly wait and the first mostly compute, so they share the time
	@$(MAKE) --no-print-directory inside > .inside.log 2>&1 & inside=$$!; \
	$(MAKE) --no-print-directory e2e; status=$$?; \
	wait $$inside || status=1; cat .inside.log; exit $$status

inside: venv  ## every test but e2e and soak
	$(BIN)/python -m pytest -rs -m "not e2e and not soak" tests

soak: test  ## full counts of kills, fuzz and seeds, and every property by fresh seeds
	$(BIN)/python -m pytest -rs -m "soak or not e2e" tests

sim: venv  ## the simulation by seed: make sim SEED=17, make sim SEEDS=10000
	$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

bench: venv  ## figures and ratios; never a timed test
	$(BIN)/python -m bench

lock: venv  ## renew requirements/dev.lock
	$(BIN)/python tools/lock.py

clean:
	rm -rf .venv .peers .inside.log build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/kubesvc/api/schemas.bin
