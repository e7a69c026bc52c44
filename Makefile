# What people and CI run. A fresh machine needs Python 3.11 or newer, git and make; the rest is made here, in .venv.
# Another interpreter: make test PYTHON=python3.13

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
READY := .venv/.ready
PYTEST_ARGS ?=
BENCH_ARGS ?=
MATRIX_ARGS ?=
SEED ?= 1
MINUTES ?= 30
FAULTS_ARGS ?=
UV ?= uv

.DEFAULT_GOAL := help
.PHONY: help demo up test faults faults-long matrix bench check format lint types contracts lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*##  *\(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(READY)  ## a real upload on real servers, with a worker killed on the way; everything is stopped at the end
	@$(BIN)/sliceway demo

up: $(READY)  ## the whole system on this machine until Ctrl-C; the next time it is back where it was
	@$(BIN)/sliceway up

test: $(READY)  ## all tests but the fault suite; PYTEST_ARGS="-k checkpoint" for some
	@$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(PYTEST_ARGS)

faults: $(READY)  ## the fault suite, short form: everything is killed, emptied, cut and lied to
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/faults $(PYTEST_ARGS)

faults-long: $(READY)  ## kill loops and their figures; SEED=1 MINUTES=30 FAULTS_ARGS="--timers shipped"; or "--sources 60"
	@$(BIN)/python -m tests.faults --seed $(SEED) --minutes $(MINUTES) $(FAULTS_ARGS)

matrix: $(READY)  ## an upload on each broker and database of docs/compatibility.md, 10 minutes; MATRIX_ARGS="-k rabbitmq" for some
	@$(BIN)/python -m pytest tests/matrix $(MATRIX_ARGS)

bench: $(READY)  ## every benchmark, 25 minutes on a quiet machine; writes its tables into docs/benchmarks.md
	@$(BIN)/python tests/benchmarks/bench.py $(BENCH_ARGS)

check: format lint types contracts test  ## everything that must hold before a push

format: $(READY)  ## is the code formatted?
	@$(BIN)/ruff format --check --quiet .

lint: $(READY)  ## ruff
	@$(BIN)/ruff check --quiet .

types: $(READY)  ## mypy, strict
	@$(BIN)/mypy --no-error-summary

contracts: $(READY)  ## which package may import which
	@$(BIN)/lint-imports > .venv/contracts.log || { cat .venv/contracts.log; exit 1; }

lock:  ## resolve the dependencies anew (needs uv)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	@$(UV) pip compile pyproject.toml --extra local --group dev --universal --python-version 3.11 --upgrade --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --quiet --output-file requirements.lock

clean:  ## forget the environment and every cache
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

$(READY): requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "No Python 3.11 or newer found: install one, or name it with PYTHON=…" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "$(PYTHON) is not a Python 3.11 or newer: name another one with PYTHON=…" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments: install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up .venv with $$("$(PYTHON)" --version); a minute or two, once"
	@$(BIN)/python -c '' 2>/dev/null || "$(PYTHON)" -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
