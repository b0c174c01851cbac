"""RMSE of the default search on the real months of three years, and of the course's recipe.

Everything is measured with the metered distance unless it says otherwise, without a live level.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory

from mlflow import MlflowClient

from bench import DATA, Result
from steps.common.results import RMSES
from taxi.distances import KINDS

MONTHS = {
    "2021": ("--train_months=2021-01", "--valid_months=2021-02"),
    "2022": ("--train_months=2022-01", "--valid_months=2022-02"),
    "2023": ("--train_months=2023-01", "--valid_months=2023-02"),
}
WITH_2022 = ("--train_months=2022-01,2022-02,2023-01", "--valid_months=2023-02")
COURSE = ("--features=course", "--search_space=course_best")
MUST = {"2021": "5.02", "2022": "4.48", "2023": "3.90"}
MUST_TEST = {"metered": "3.92", "planned_20": "4.45", "missing": "5.05"}


def measure() -> Iterator[Result]:
    """Run the pipeline with 50 trials and seed 42."""
    course = metrics("hpo", *MONTHS["2021"], "--test_months=", *COURSE)
    yield Result(
        "2021, the course's recipe: valid RMSE", f"{course['rmse']:.3f} min", "6.318 +- 0.02"
    )
    for year in ("2021", "2022"):
        found = metrics("hpo", *MONTHS[year], "--test_months=")
        yield Result(f"{year}: valid RMSE", f"{found['rmse']:.3f} min", MUST[year])
    later = metrics("main", *MONTHS["2023"], "--models=mean")
    yield Result("2023: valid RMSE", f"{later['hpo.rmse']:.3f} min", MUST["2023"])
    yield from tested("2023-03, refitted on 01 and 02", later, MUST_TEST)
    more = metrics("main", *WITH_2022, "--models=mean")
    yield from tested("2023-03, with 2022's months", more, {"metered": "3.85"})


def tested(what: str, found: Mapping[str, float], must: Mapping[str, str]) -> Iterator[Result]:
    """List the test RMSE with each kind of distance."""
    for kind, name in RMSES.items():
        rmse = found[f"register.test_{name}"]
        yield Result(f"{what}: test RMSE, {KINDS[kind]}", f"{rmse:.3f} min", must.get(kind, ""))


def metrics(step: str, *arguments: str) -> dict[str, float]:
    """Run a step on a fresh store and read its metrics."""
    with TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        command = [sys.executable, "-m", f"steps.{step}", f"--source={DATA}", *arguments]
        done = subprocess.run(
            command, env=os.environ | {"MLFLOW_TRACKING_URI": uri}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        client = MlflowClient(uri)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        (run,) = client.search_runs(ids, f"tags.step = '{step}'")
        return dict(run.data.metrics)
