"""The frame of every step: read the parameters, open the run, and close it in any case.

An error that the user can mend ends in one line and exit code 2, an interruption in 130; an
unexpected error keeps its traceback. In each case the run is closed and records why.
"""

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NoReturn

import mlflow

from steps.common import page
from steps.common.command_line import P, make_parser, parse
from steps.common.declaration import Parameters
from steps.common.parameters import PlanParameters, TrainingParameters
from storage import UserError, drivers, environment, interruptions, terminal
from storage.environment import INTERRUPTED, USER_ERROR
from storage.repro import reuse, step_key
from storage.tracking import pages, runs, store, tags
from storage.tracking.fork_server import ForkServer
from taxi import TripError

RERUN_HINT = "Start it and run this again: steps that have finished are not run twice."


@contextmanager
def step_run(declared: type[P], description: str | None, argv: Sequence[str] | None) -> Iterator[P]:
    """Read the command line of a step and run the body inside the step's MLflow run.

    Args:
        declared: the step's parameters.
        description: for --help.
        argv: the command line; None = that of this process.
    Yields:
        The parameters.
    """
    interruptions.raise_on_first_signal()
    _quieten()
    step, is_open = declared.entry_point, False
    store.unescape_sqlite_uri()
    try:
        params = _read(declared, description, argv)
        step_key.code(step)  # hash the code that runs now, before anybody can edit it
        plans = isinstance(params, PlanParameters) and params.plan
        again = partial(page.rerun_command, params)
        run = runs.plan_run() if plans else runs.StepRun(step, params.developer, again)
        forks = _fork_server(params)
        with one_line_errors(), run, forks, one_line_errors():
            is_open = mlflow.active_run() is not None
            environment.start_garbage_collection()
            environment.check_lock()
            with locating_errors(params):
                _log_file(params)
                yield params
            reuse.record_outputs()
            if not plans:
                _print_run_address(step)
    except (TripError, UserError) as error:
        _exit(f"{step}: {error}", USER_ERROR, is_open=is_open)
    except KeyboardInterrupt:
        if not is_open:  # so the run that `mlflow run` created has not been closed either
            environment.restore_later(os.environ.get("MLFLOW_RUN_ID"))
        _exit(f"{step}: interrupted", INTERRUPTED, is_open=is_open)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of a store, and a missing driver, into one line."""
    with drivers.missing_as_error(), store.loss_as_error(RERUN_HINT):
        yield


def _fork_server(params: P) -> ExitStack:
    """Start the server that child steps are forked from, if any may be launched; to be closed."""
    is_chain = isinstance(params, PlanParameters) and not params.plan
    is_start = isinstance(params, TrainingParameters) and not params.preprocess_run_id
    server = ExitStack()
    if (is_chain or is_start) and sys.platform == "linux" and environment.is_prepared():
        server.callback(ForkServer(step_key.read_loaded).close)
    return server


@contextmanager
def locating_errors(params: Parameters) -> Iterator[None]:
    """Add to an error the line of the parameter file that it is about, unless it names one."""
    try:
        yield
    except (TripError, UserError) as error:
        file, message = params.file, str(error)
        if file and not re.search(r"(^|See )\S+:\d+[:.]", message):
            places = file.places(message, params.names_in_file())
            error.args = (f"{message} See {places}.",) if places else error.args
        raise


def _log_file(params: P) -> None:
    """Log the parameter file and the values that it sets to the active run, and print them."""
    if params.file is None:
        return
    values = params.file_texts()
    given = [f"{name}={text}" for name, text in values.items()] + params.describe_lists()
    print(f"config: {params.config} gives {', '.join(given) or 'nothing of this step'}")
    if mlflow.active_run():
        mlflow.log_text(params.file.text, tags.CONFIG)
        # MLflow has logged the typed values under the plain names, and they cannot be overwritten
        mlflow.log_params({tags.FROM_CONFIG.of(name): text for name, text in values.items()})


def _print_run_address(step: str) -> None:
    """Print the address of the active run's page, unless a pipeline's page leads there."""
    active = mlflow.active_run()
    if active and runs.is_user_facing(active):
        link = pages.run_link(active.info.experiment_id, active.info.run_id)
        print(f"{step}: View this run at {pages.address(link)}")


def _read(declared: type[P], description: str | None, argv: Sequence[str] | None) -> P:
    try:
        return parse(declared, make_parser(declared, description), argv)
    except UserError:
        # `mlflow run` created the run before the parameters were checked: open it, to close it
        if os.environ.get("MLFLOW_RUN_ID"):
            step = declared.entry_point
            with runs.StepRun(step, "", lambda: f"python -m {declared.module()} --help"):
                raise
        raise


def _quieten() -> None:
    """Silence everything but what the steps print, and flush that line by line."""
    terminal.quieten()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _exit(line: str, code: int, *, is_open: bool) -> NoReturn:
    terminal.print_line(" ".join(line.split()), style="red", to=sys.stderr)
    if is_open:  # flushing opens the store, and would migrate one of an older MLflow
        mlflow.flush_async_logging()
    sys.exit(code)
