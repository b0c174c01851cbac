"""Wall time of whole steps, as a person waits for them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from bench import DATA, Result

REAL = ("--train_months=2021-01", "--valid_months=2021-02", "--test_months=")


def measure() -> Iterator[Result]:
    """Time the demo with its environment in place, and baseline on the real months of 2021."""
    demo = seconds("main", "--source=simulated", "--max_evals=10")
    yield Result("`make demo`, environment in place", f"{demo / 60:.1f} min", "4 min")
    baseline = seconds("baseline", f"--source={DATA}", *REAL)
    yield Result("baseline, all models, 2021 months", f"{baseline / 60:.1f} min", "8 min")


def seconds(step: str, *arguments: str) -> float:
    """Run a step on a fresh store and time it from outside."""
    with TemporaryDirectory() as folder:
        env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        start = perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", f"steps.{step}", *arguments],
            env=env,
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return perf_counter() - start
