# Needs Python 3.11, git and make. `make demo` runs the pipeline offline, `make test` passes the tests.
SHELL := bash
PYTHON ?= python3.11
EXPERIMENT ?= nyc-taxi-experiment
EXTRAS ?=
PORT ?= 5000
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# imports take three times as long without bytecode, and uv compiles none unless told
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

PINNED := $(shell sed -n 's/^python: "\(.*\)"/\1/p' python_env.yaml)
# a uv environment wants the very Python of python_env.yaml; where it is neither here nor to be
# downloaded, the demo runs in .venv, which holds the same locked packages
ENV_MANAGER = $(shell { .venv/bin/uv python find $(PINNED) || .venv/bin/uv python install $(PINNED); } >/dev/null 2>&1 \
                && echo uv || echo local)

.PHONY: demo test check lock ui bench plan verify doctor store

LOCK = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
       --no-annotate --no-emit-index-url --quiet $(addprefix --extra ,$(EXTRAS))

.venv/.ready: requirements-dev.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	    "$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements-dev.txt)"
	VIRTUAL_ENV=$(CURDIR)/.venv .venv/bin/uv pip sync --quiet requirements-dev.txt
	touch $@

demo: .venv/.ready  ## the whole pipeline on simulated months, in a locked environment of its own
	mlflow run . --env-manager $(ENV_MANAGER) --experiment-name $(EXPERIMENT) \
	    -P source=simulated -P max_evals=10

test: .venv/.ready check  ## lint, types and every test
	python -m pytest -q --numprocesses=auto --maxprocesses=4

check: .venv/.ready
	ruff check .
	ruff format --check .
	mypy

lock: .venv/.ready  ## after editing pyproject.toml; EXTRAS="s3 gs" adds optional drivers
	$(LOCK) --output-file requirements.txt
	$(LOCK) --extra dev --constraint requirements.txt --output-file requirements-dev.txt

ui: .venv/.ready  ## the MLflow UI on this folder's store
	mlflow ui --port $(PORT)

bench: .venv/.ready
	python -m bench

plan: .venv/.ready  ## what `mlflow run . -P plan=true` says, with no run made for it; ARGS="--taxi=yellow"
	python -m steps.main --plan=true $(ARGS)

verify: .venv/.ready  ## run a pipeline again in a fresh clone and environment, and compare: RUN=<id>
	python -m storage.repro.verify $(RUN)

doctor:  ## what a run needs and lacks, each with the command that mends it
	@$$(test -x .venv/bin/python && echo .venv/bin/python || echo $(PYTHON)) -m tools.doctor

store: .venv/.ready  ## make the store before several pipelines use it at once for the first time
	python -m storage.tracking.store
