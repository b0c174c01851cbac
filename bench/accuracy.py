"""RMSE of the default search on the real months of both years, and of the course's recipe."""

import os
import subprocess
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from mlflow import MlflowClient

from bench import DATA, Result

YEARS = {
    "2021": ("--train_months=2021-01", "--valid_months=2021-02", "--test_months="),
    "2023": ("--train_months=2023-01", "--valid_months=2023-02"),
}
COURSE = ("--features=course", "--search_space=course_best")


def measure() -> Iterator[Result]:
    """Run the pipeline with 50 trials and seed 42 on both years."""
    course = metrics("hpo", *YEARS["2021"], *COURSE)
    yield Result(
        "2021, the course's recipe: valid RMSE", f"{course['rmse']:.3f} min", "6.318 +- 0.02"
    )
    first = metrics("hpo", *YEARS["2021"])
    yield Result("2021: valid RMSE", f"{first['rmse']:.3f} min", "5.16")
    later = metrics("main", *YEARS["2023"], "--models=mean")
    both = f"{later['hpo.rmse']:.3f} / {later['register.test_rmse']:.3f} min"
    yield Result("2023: valid / test RMSE", both, "4.03 / 4.18")


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
