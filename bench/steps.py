"""What whole steps cost: wall time, which people wait, and CPU time, which depends less on load."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from bench import DATA, Result

REAL = ("--train_months=2021-01", "--valid_months=2021-02", "--test_months=")


def measure() -> Iterator[Result]:
    """Time the demo, its environment being in place, and baseline on the real months of 2021."""
    demo = spent("main", "--source=simulated", "--max_evals=10")
    yield Result("`make demo`, environment in place", f"{demo.wall_s / 60:.1f} min", "50 s")
    yield Result("the same, CPU of all its processes", f"{demo.cpu_s:.0f} s", "62 s")
    baseline = spent("baseline", f"--source={DATA}", *REAL)
    yield Result("baseline, all models, 2021 months", f"{baseline.wall_s / 60:.1f} min", "8 min")


class Spent(NamedTuple):
    """What a command cost, including all processes that it started."""

    wall_s: float
    cpu_s: float


def spent(step: str, *arguments: str) -> Spent:
    """Run a step on a fresh store, and time it from outside."""
    with TemporaryDirectory() as folder:
        env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        start, before = perf_counter(), children_cpu_s()
        done = subprocess.run(
            [sys.executable, "-m", f"steps.{step}", *arguments],
            env=env,
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return Spent(perf_counter() - start, children_cpu_s() - before)


def children_cpu_s() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system
