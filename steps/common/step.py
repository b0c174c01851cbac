"""What happens: one file per entry point of MLproject, run as `python -m steps.<name>`.

Shared by all of them: what each parameter means, and the frame that parses them, opens the run and
turns an error the user can mend into one line and exit code 2.
"""

import argparse
import io
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import mlflow
from mlflow.exceptions import MlflowException

from storage import StorageError, StoreGoneError
from storage.repro import checkout, reuse, step_key
from storage.tracking import runs
from taxi import TripError

USER_ERROR, INTERRUPTED = 2, 130
INTERRUPTS = (signal.SIGTERM, signal.SIGINT)


def whole_number(minimum: int) -> Callable[[str], int]:
    """Make an argparse type for whole numbers from `minimum` on."""

    def parse(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {minimum}, got {text!r}"
            )
        return int(text)

    return parse


def number(minimum: float) -> Callable[[str], float]:
    """Make an argparse type for numbers from `minimum` on."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value < math.inf:
            raise argparse.ArgumentTypeError(
                f"must be a number of at least {minimum:g}, got {text!r}"
            )
        return value

    return parse


def minutes(text: str) -> float:
    """Argparse type for a span of time."""
    if not text.replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"must be minutes such as 30 or 0.5, got {text!r}")
    return float(text)


def true_or_false(text: str) -> bool:
    """Argparse type for a switch."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return text.lower() == "true"


# name -> type and meaning; one meaning wherever the parameter appears, defaults live in MLproject
PARAMETERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "taxi": (str, "green or yellow"),
    "source": (
        str,
        "where months come from: tlc, simulated[:trips[:seed]], or a folder or URI (file, http, "
        "s3, gs) of files named as the TLC names them",
    ),
    "train_months": (str, "months to fit on: YYYY-MM, a list a,b or a range a..b"),
    "valid_months": (str, "months to choose by"),
    "test_months": (
        str,
        "months that only register opens; next = the one after valid_months, empty = none",
    ),
    "preprocess_run_id": (str, "preprocess run to build on; empty makes one"),
    "baseline_run_id": (str, "baseline run whose models are candidates; empty makes one"),
    "hpo_run_id": (str, "hpo run whose model is a candidate; empty makes one"),
    "models": (str, "baselines to fit: all, or a list a,b of taxi/baselines.py"),
    "features": (str, "feature set of the search, of taxi/features.py"),
    "search_space": (str, "what the search tries, of taxi/spaces.py; seed is the course's own"),
    "max_evals": (whole_number(1), "trials in all"),
    "max_minutes": (minutes, "start no trial after so many minutes; 0 = no limit"),
    "warm_start": (true_or_false, "try the best points of earlier searches of this kind first"),
    "parallelism": (
        whole_number(0),
        "trials at once; 0 = one per core, GPU or worker's thread, at most 8",
    ),
    "scheduler": (
        str,
        "Dask scheduler whose workers run the trials or score the months; empty = here",
    ),
    "device": (str, "cpu or cuda"),
    "model_name": (str, "registered model"),
    "max_rmse": (number(0), "largest RMSE on test, in minutes, that a champion may have"),
    "min_r2": (number(-1), "smallest R2 on test that a champion may have"),
    "min_improvement": (number(0), "minutes of test RMSE by which the champion must be beaten"),
    "allow_simulated": (
        true_or_false,
        "true lets a model of simulated months replace a champion of real ones",
    ),
    "allow_dirty": (
        true_or_false,
        "true lets a model of uncommitted code replace a champion of committed code",
    ),
    "months": (str, "months to score: YYYY-MM, a list a,b or a range a..b"),
    "model_uri": (str, "model to score with: models:/name@alias, models:/name/version or another"),
    "output": (str, "folder for the predictions; empty = the artifacts of the run"),
    "overwrite": (true_or_false, "true replaces predictions that are there"),
    "fail_on_drift": (true_or_false, "true ends with exit code 3 where a month has drifted"),
    "max_psi": (number(0), "population stability index above which a feature has drifted"),
    "max_unseen": (number(0), "share of trips with an unseen zone or pair, above valid's"),
    "max_rmse_rise": (number(0), "share by which RMSE may be above that on the test months"),
    "rollback": (true_or_false, "true only puts the champion before this one back"),
    "seed": (whole_number(0), "of every random choice"),
    "reuse": (true_or_false, "take the results of steps that have run already; false runs all"),
    "plan": (true_or_false, "true says what would run, and why, and runs nothing"),
    "developer": (str, "tag on every run; empty = the git or system user"),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise StorageError(f"{message}. See python -m steps.{self.prog} --help.")


def entry_parser(step: str, description: str | None) -> argparse.ArgumentParser:
    """Build the parser of an entry point from the parameters MLproject declares for it."""
    parser = _Parser(
        prog=step,
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, default in checkout.parameters(step).items():
        kind, meaning = PARAMETERS[name]
        parser.add_argument(f"--{name}", type=kind, default=default, help=meaning)
    return parser


@contextmanager
def step_run(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> Iterator[argparse.Namespace]:
    """Parse the arguments and run the body inside the step's MLflow run.

    Exit code 2 and one line on stderr for what the user can mend, 130 when interrupted; a
    surprise keeps its traceback. Either way the run is closed and says why.
    """
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    _quieten()
    try:
        args = _parse(parser, argv)
        step_key.code(parser.prog)  # the code that runs, whatever is edited meanwhile
        plans = getattr(args, "plan", False)
        opened = runs.plan_run() if plans else runs.StepRun(parser.prog, args.developer)
        with opened, _store_stays():
            yield args
            reuse.record_outputs()
    except (TripError, StorageError) as error:
        _leave(f"{parser.prog}: {error}", USER_ERROR)
    except KeyboardInterrupt:
        _leave(f"{parser.prog}: interrupted", INTERRUPTED)


@contextmanager
def _store_stays() -> Iterator[None]:
    """Tell a tracking server that went away for good from a surprise."""
    try:
        yield
    except MlflowException as error:
        if not runs.is_gone(error):
            raise
        place = checkout.without_credentials(mlflow.get_tracking_uri())
        raise StoreGoneError(
            f"The MLflow server at {place} went away and did not come back. Start it and run this "
            f"again: steps that have finished are not run twice."
        ) from error


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    try:
        return parser.parse_args(argv)
    except StorageError:
        # `mlflow run` made the run before anybody looked at the parameters
        if "MLFLOW_RUN_ID" in os.environ:
            with runs.StepRun(parser.prog, ""):
                raise
        raise


def _quieten() -> None:
    """Leave the terminal to what the steps say, line by line as they say it."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("mlflow.pyfunc", "mlflow.projects.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    for number in INTERRUPTS:
        signal.signal(
            number, signal.SIG_IGN
        )  # once is enough: a second would cut the clean-up short
    raise KeyboardInterrupt


def _leave(line: str, code: int) -> NoReturn:
    print(" ".join(line.split()), file=sys.stderr)
    mlflow.flush_async_logging()
    sys.exit(code)
