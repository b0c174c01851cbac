"""What measurements of the search share: a fresh store, real rows, a timed search."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import NamedTuple

import mlflow
import numpy as np
import xgboost as xgb
from mlflow import MlflowClient

from bench.serving import load
from steps.common.search_key import SearchSettings
from steps.hpo.ensemble import choose_boosters, log_boosters, train_seeds
from steps.hpo.executor import open_executor
from steps.hpo.search import Budget, run_search
from storage.tracking import experiments, runs
from storage.tracking.trials import TrialRuns
from taxi import features, spaces
from taxi.rows import Rows, rows_with_distance
from taxi.scores import score_predictions
from taxi.search import Trial
from taxi.spaces import LAG, SearchSpace

MONTHS = {"2021": ("2021-01", "2021-02"), "2023": ("2023-01", "2023-02")}
SEED = 42


class Spent(NamedTuple):
    """What something cost."""

    wall: float  # seconds
    cpu: float  # seconds, of all threads and child processes


class Found(NamedTuple):
    """What a search and the choice of its boosters cost, and their result."""

    n_rounds: int  # of all trials
    spans: list[tuple[int, int]]  # of the trials' runs: start and end, ms
    search: Spent  # with its table and pictures
    choice: Spent
    rmse: float  # of the chosen boosters on valid, minutes


@contextmanager
def store() -> Iterator[str]:
    """Make a fresh tracking store for this process; yield its URI, for others."""
    before = mlflow.get_tracking_uri()
    with TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        mlflow.set_tracking_uri(uri)
        where = Path(folder, "artifacts").as_uri()
        mlflow.create_experiment(experiments.DEFAULT, artifact_location=where)
        try:
            yield uri
        finally:
            mlflow.set_tracking_uri(before)


def run(uri: str, *command: str, env: Mapping[str, str] = os.environ) -> tuple[str, Spent]:
    """Run a module on a store in its own process; return its output and what it cost."""
    start, before = perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, **env, "MLFLOW_TRACKING_URI": uri},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    wall, after = perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, Spent(wall, cpu)


def run_id(uri: str, step: str) -> str:
    """Find the only run of a step in a store."""
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    (found,) = client.search_runs(ids, f"tags.step = '{step}'")
    return str(found.info.run_id)


@cache
def real_rows(year: str) -> Rows:
    """Encode the real months of a year with the full features."""
    train, valid = map(load, MONTHS[year])
    encoder = features.fit_encoder("full", train)
    max_bin = spaces.select_space("lossguide").max_bin
    return rows_with_distance(encoder, train, valid, max_bin=max_bin)


def settings_of(space: SearchSpace) -> SearchSettings:
    """Return the step's default settings for this space."""
    return SearchSettings(
        space,
        features="full",
        seed=SEED,
        device="cpu",
        lag=LAG,
        warm_start=False,
        half_life=0,
        search_rows=0,
    )


def searched(space: SearchSpace, rows: Rows, *, max_evals: int = 50, scheduler: str = "") -> Found:
    """Search in this process as the step does, with tracking, and choose boosters."""
    settings, budget = settings_of(space), Budget(max_evals, max_minutes=0, parallelism=0)
    with (
        store(),
        redirect_stdout(sys.stderr),  # stdout is for the table alone
        runs.StepRun("hpo", "bench"),
        open_executor(rows, scheduler=scheduler, device="cpu", parallelism=0) as executor,
    ):
        clock = Clock()
        log = TrialRuns(rows.key, {"model": "xgboost"})
        trials = run_search(settings, budget, executor, log, reuse=True, resume=str)
        search = clock.lap()
        with runs.child_run("ensemble", {"model": "xgboost"}):
            seeds = train_seeds(settings, executor, trials)
            chosen = choose_boosters(settings, executor, trials, seeds, rows)
            log_boosters(chosen, [])
        boosters = [one.booster for one in chosen]
        return Found(
            n_rounds(trials), spans_of_trials(), search, clock.lap(), rmse_of(boosters, rows)
        )


def n_rounds(trials: list[Trial]) -> int:
    """Count the boosting rounds of trials."""
    return sum(trial.outcome.n_rounds for trial in trials if trial.outcome)


def spans_of_trials() -> list[tuple[int, int]]:
    """Read when each trial in the store started and ended, ms."""
    found = mlflow.search_runs(
        filter_string="tags.trial != ''", output_format="list", search_all_experiments=True
    )
    return [(run.info.start_time, run.info.end_time) for run in found]


def rmse_of(boosters: list[xgb.Booster], rows: Rows) -> float:
    """Return the RMSE of the boosters' average on valid, minutes."""
    predicted = np.mean([booster.inplace_predict(rows.valid) for booster in boosters], axis=0)
    return score_predictions(rows.valid_y, predicted)["rmse"]


class Clock:
    """Wall and CPU seconds of this process since the last lap."""

    def __init__(self) -> None:
        self.last = Spent(perf_counter(), process_time())

    def lap(self) -> Spent:
        """Return what was spent since the last lap."""
        last, self.last = self.last, Spent(perf_counter(), process_time())
        return Spent(self.last.wall - last.wall, self.last.cpu - last.cpu)
