# Needs a Python from 3.11 to 3.14, git and make. `make demo` runs the pipeline offline, `make test`
# runs the tests. `make` alone lists all targets and variables, from their ## comments.
.DEFAULT_GOAL := help
SHELL := bash
## PYTHON      a Python from 3.11 to 3.14, which makes .venv
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
    $$name -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
    >/dev/null 2>&1 && echo $$name && break; done)
## EXPERIMENT  experiment that demo runs in
EXPERIMENT ?= nyc-taxi-experiment
## PORT        port of ui and serve
PORT ?= 5000
## ARGS        of plan, main's parameters: ARGS="--taxi=yellow"
ARGS ?=
## RUN         of verify and export, the id of a run of main
RUN ?=
## FILE        of export and import, the file: FILE=pipeline.zip
FILE ?=
## EXTRAS      of lock, optional drivers: EXTRAS="s3 gs"
EXTRAS ?=
## UPGRADE     of lock, packages to upgrade to their newest version: UPGRADE="numpy pandas"
UPGRADE ?=
## MLFLOW_LOGGING_LEVEL  of demo, ui and verify: INFO shows MLflow's own log lines too
MLFLOW_LOGGING_LEVEL ?= WARNING
demo ui verify: export MLFLOW_LOGGING_LEVEL := $(MLFLOW_LOGGING_LEVEL)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# without bytecode, imports take three times as long: let Python write it
unexport PYTHONDONTWRITEBYTECODE

CHAMPION = models:/nyc-taxi-duration@champion
PINNED := $(shell sed -n 's/^python: "\(.*\)"/\1/p' python_env.yaml)
# a uv environment needs exactly the Python of python_env.yaml; if that is neither here nor can be
# downloaded, a run uses .venv, which has the same locked packages. So does the demo if .venv has
# that Python: a second environment would be the same, and cost its bytecode again
ENV_MANAGER = $$({ uv python find $(PINNED) || uv python install $(PINNED); } >/dev/null 2>&1 \
                && echo uv || echo local)
# MLflow passes the folder of its environments to a shell unquoted
BAD_ROOT = case "$${MLFLOW_ENV_ROOT:-$$HOME}" in *[[:space:]%\']*) ;; *) false ;; esac
NO_PYTHON = make: no Python from 3.11 to 3.14 that can make a venv is on the PATH. \
            Install one (Debian: apt install python3-venv), or name it: PYTHON=<path>.
NO_XGBOOST = make: xgboost is installed, and cannot be loaded: make doctor (macOS: brew install libomp)
# uv's own hint is a command-line option, which cannot be passed through make
NO_PACKAGES = make: uv could not install the packages. Where the certificate of a proxy is in its way: \
              export UV_SYSTEM_CERTS=true
NO_PINNED = no Python $(PINNED) here and none to be downloaded, so this runs in .venv

.PHONY: help demo ui serve plan verify export import doctor store test check pictures notebook contract lock bench

LOCK = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
       --no-annotate --no-emit-index-url --quiet $(addprefix --extra ,$(EXTRAS)) \
       $(addprefix --upgrade-package ,$(UPGRADE))

# uv's lines about packages: only downloads of 10 MB and more are shown, as progress
SMALL = -e '^ [-+~] ' -e '^ Downloaded ' -e '^Downloading .*([0-9.]*KiB)' -e '^Downloading .*([0-9][.][0-9]*MiB)'

# without .ready the environment is incomplete, and is made anew
.venv/.ready: requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	@echo "make: installing the locked packages into .venv, once"
	$(PYTHON) -m venv $(if $(wildcard $@),,--clear) .venv
	rm -f $@
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	    "$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements-dev.txt)"
	@set -o pipefail; VIRTUAL_ENV="$$PWD/.venv" .venv/bin/uv pip sync requirements-dev.txt 2>&1 | \
	    { grep --line-buffered -v $(SMALL) || test $$? -eq 1; } || \
	    { echo "$(NO_PACKAGES)" >&2; exit 2; }  # grep's 1: it printed no line
	@.venv/bin/python -c 'import xgboost' 2>/dev/null || { echo "$(NO_XGBOOST)" >&2; exit 2; }
	@touch $@

help:  ## this list
	@echo "make <target> [VARIABLE=value]"
	@echo
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / {printf "  %-10s  %s\n", $$1, $$2}' Makefile
	@echo
	@sed -nE 's/^## /  /p' Makefile

demo: .venv/.ready  ## the whole pipeline on simulated months, in the locked environment
	@case "$$MLFLOW_TRACKING_URI$$PWD" in http*) ;; *[%?\']*) \
	    echo "demo: MLflow misreads $$PWD, because of a sign in its path: make doctor" >&2; exit 2 ;; esac
	@manager=local; python=$$(python -V); \
	if test "$$python" = "Python $(PINNED)"; then :; \
	elif $(BAD_ROOT); then echo "demo: MLflow can make no environment in $${MLFLOW_ENV_ROOT:-$$HOME}," \
	    "so this runs in .venv ($$python)"; \
	elif test $(ENV_MANAGER) = uv; then manager=uv; \
	    echo "demo: once, MLflow makes an environment of Python $(PINNED)"; \
	else echo "demo: $(NO_PINNED) ($$python)"; fi; \
	set -ex; mlflow run . --env-manager $$manager --experiment-name $(EXPERIMENT) \
	    -P source=simulated -P max_evals=10
	@manager=local; instead=; test "$$(python -V)" = "Python $(PINNED)" || $(BAD_ROOT) || \
	    { uv python find $(PINNED) >/dev/null 2>&1 && manager=uv; } || \
	    instead='Without Python $(PINNED), mlflow run --env-manager uv fails here: write local.'; \
	printf '%s\n' $${instead:+'' "$$instead"} '' 'Next, the runs in a browser:' '    make ui' 'or a longer search, which goes on from this one:' \
	    '    source .venv/bin/activate' '    export MLFLOW_EXPERIMENT_NAME=$(EXPERIMENT)' \
	    "    mlflow run . --env-manager $$manager -e hpo -P source=simulated -P max_evals=50"

# a tracking server has its own UI: `mlflow ui` would show an empty store of this folder instead
ui: .venv/.ready  ## the MLflow UI on the store of this folder, or of MLFLOW_TRACKING_URI
	@MLFLOW_EXPERIMENT_NAME="$${MLFLOW_EXPERIMENT_NAME:-$(EXPERIMENT)}" python -m storage.tracking.pages $(PORT)
	@case "$$MLFLOW_TRACKING_URI" in \
	    http://* | https://*) exit ;; \
	    ?*) export MLFLOW_BACKEND_STORE_URI="$$MLFLOW_TRACKING_URI" ;; \
	esac; set -x; \
	PYTHONWARNINGS=ignore exec mlflow ui --port $(PORT) --workers 1 --uvicorn-opts --no-access-log

serve: .venv/.ready  ## serve the champion with MLflow's model server, from the store of this folder
	@python -m tools.served $(CHAMPION) $(PORT)
	MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false MLFLOW_TRACKING_URI=$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db} mlflow models serve \
	    -m $(CHAMPION) --env-manager local --port $(PORT) --workers 2

plan: .venv/.ready  ## say what main would run, and why, without running it
	python -m steps.main --plan=true $(ARGS)

verify: .venv/.ready  ## run a pipeline again in a fresh clone and environment, and compare
	@manager=$(ENV_MANAGER); test $$manager = uv || echo "verify: $(NO_PINNED) ($$(python -V))"; \
	python -m storage.repro.verify --env-manager $$manager "$(RUN)"

export: .venv/.ready  ## write a pipeline with all that belongs to it from this store to a file
	@python -m storage.repro.transfer export "$(RUN)" "$(FILE)"

import: .venv/.ready  ## read a file that export has written into this store; safe to repeat
	@python -m storage.repro.transfer import "$(FILE)"

doctor:  ## check what a run needs, with a command that fixes each problem
	@python=$$(test -x .venv/bin/python && echo .venv/bin/python || echo $(PYTHON)); \
	test -n "$$python" || { echo "$(NO_PYTHON)" >&2; exit 2; }; $$python -m tools.doctor

store: .venv/.ready  ## create the store, before several pipelines use it at once for the first time
	python -m storage.tracking.store

test: .venv/.ready  ## run every test, make check included
	python -m pytest -q --numprocesses=auto --maxprocesses=4

check: .venv/.ready  ## check lint, types, and that what make contract writes is up to date
	ruff check .
	ruff format --check .
	mypy
	python -m tools.contract --check

pictures: .venv/.ready  ## take the screenshots of README again, after make demo; needs Chromium
	MLFLOW_EXPERIMENT_NAME=$(EXPERIMENT) python -m tools.pictures

notebook: .venv/.ready  ## run docs/explore.ipynb again, after make demo; Jupyter is fetched for it
	VIRTUAL_ENV="$$PWD/.venv" MLFLOW_EXPERIMENT_NAME=$(EXPERIMENT) uv run --no-project \
	    --with nbconvert --with ipykernel --with ipywidgets jupyter nbconvert --execute \
	    --ExecutePreprocessor.record_timing=False --to notebook --inplace docs/explore.ipynb

contract: .venv/.ready  ## generate MLproject, and the tables and the diagram in docs, from declarations
	python -m tools.contract

lock: .venv/.ready  ## resolve the dependencies of pyproject.toml into requirements*.txt
	$(LOCK) --output-file requirements.txt
	$(LOCK) --extra dev --constraint requirements.txt --output-file requirements-dev.txt

bench: .venv/.ready  ## measure every number of docs/numbers.md
	python -m bench
