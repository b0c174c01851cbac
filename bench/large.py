"""What the steps need by number of trips: CPU and peak memory, as their runs record them.

LARGE=30000,300000 sets the sizes of a simulated month. Train, valid and test are one month each.
"""

import os
from collections.abc import Iterator

from mlflow import MlflowClient

from bench import Result
from bench.search_lab import run, run_id, store
from storage.tracking.tags import CPU_SECONDS, PEAK_MEMORY

SIZES = os.environ.get("LARGE", "30000,300000,3000000")
N_TRIALS = 3
PLANNED = 30_000, 3_000_000  # trips of a month
WORDS = {
    "preprocess": [],
    "baseline": ["--models=linear_regression,hist_gradient_boosting"],
    "hpo": [f"--max_evals={N_TRIALS}"],
}


def measure() -> Iterator[Result]:
    """Run the steps one by one on months of each size, in a separate store."""
    for size in map(int, SIZES.split(",")):
        with store() as uri:
            for step, words in WORDS.items():
                run(uri, f"steps.{step}", f"--source=simulated:{size}", *words)
                metrics = MlflowClient(uri).get_run(run_id(uri, step)).data.metrics
                yield Result(
                    " ".join([step, f"--source=simulated:{size}", *words]) + ": CPU; peak memory",
                    f"{metrics[CPU_SECONDS]:.0f} s; {metrics[PEAK_MEMORY]:.0f} MiB",
                    "",
                )


def measure_plan() -> Iterator[Result]:
    """Measure the plan of a pipeline whose months are clean, in separate stores."""
    few, many = (cost_of_plan(size) for size in PLANNED)
    what = f"`plan` of months of {PLANNED[1]:,} simulated trips over {PLANNED[0]:,}, CPU"
    yield Result(what, f"{many / few:.2f}x ({many:.1f} / {few:.1f} s)", "1.2x")


def cost_of_plan(size: int) -> float:
    """Plan three times; return the smallest of the CPU seconds."""
    source = f"--source=simulated:{size}"
    with store() as uri:
        run(uri, "steps.preprocess", source)
        return min(run(uri, "steps.main", source, "--plan=true")[1].cpu for _ in range(3))
