"""Peak memory of preprocess: twelve simulated months of a million trips, over one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import Result

N_TRIPS = 1_000_000


def measure() -> Iterator[Result]:
    """Run preprocess twice, each in a process of its own."""
    one, twelve = (peak_mib(months) for months in ("2020-01", "2020-01..2020-12"))
    what = "preprocess, peak memory of 12 months of 1,000,000 trips over 1"
    yield Result(what, f"{twelve / one:.2f}x ({twelve:.0f} / {one:.0f} MiB)", "1.2x")


def peak_mib(train_months: str) -> float:
    """Preprocess simulated months and give the process's peak resident memory."""
    with TemporaryDirectory() as folder:
        env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        command = [sys.executable, "-m", "steps.preprocess", f"--source=simulated:{N_TRIPS}"]
        command += [f"--train_months={train_months}", "--valid_months=2021-01", "--test_months="]
        with Path(folder, "log").open("w") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(Path(folder, "log").read_text()[-2000:])
        return usage.ru_maxrss / 1024
