"""Whether judging a model is about as fast as predicting, and its memory does not grow.

`python -m bench.judging 60000` resamples that many rows: the measurement runs it with other BLAS
settings.
"""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Mapping
from time import process_time

import mlflow
import numpy as np

from bench import ROOT, Result
from bench.estimate import fit_booster, simulate
from bench.search_lab import run, run_id, store
from steps.common.candidates import Lineage, log_candidate, read_profiles, report_candidate
from steps.common.inputs import load_trips, log_inputs
from steps.common.results import read_preprocess
from storage.tracking import runs
from taxi import bootstrap

N_VALID = 1_000_000
FEW_ROWS, MANY_ROWS = 60_000, 3_000_000
N_RESAMPLES = 640
KERNELS = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def measure() -> Iterator[Result]:
    """Resample few rows and many, and log a model with a million validation trips."""
    few, many = (resampling_mib(n_rows) for n_rows in (FEW_ROWS, MANY_ROWS))
    what = f"bootstrap, memory beside the predictions, {MANY_ROWS:,} over {FEW_ROWS:,} rows"
    yield Result(what, f"{many / few:.2f}x ({many:.0f} / {few:.0f} MiB)", "1.2x")
    one, default = (resampling_seconds(env) for env in (KERNELS, {}))
    what = f"bootstrap of {FEW_ROWS:,} rows, CPU with default threads over BLAS at one"
    yield Result(what, f"{default / one:.2f}x ({default:.1f} / {one:.1f} s)", "1.1x")
    logging, predicting = logging_seconds()
    what = f"logging a candidate over its own predict, {N_VALID:,} valid rows, CPU"
    yield Result(what, f"{logging / predicting:.2f}x ({logging:.1f} / {predicting:.1f} s)", "1x")


def guess(n_rows: int) -> list[np.ndarray]:
    """Make up minutes, and the predictions of two models for them, [n] each."""
    rng = np.random.default_rng(42)
    minutes = rng.uniform(1, 60, n_rows)
    return [minutes, *(minutes + rng.normal(0, 5, n_rows) for _ in range(2))]


def resampling_mib(n_rows: int) -> float:
    """Measure the peak memory of resampling on top of the predictions, MiB."""
    minutes, predicted, _ = guess(n_rows)

    def columns(rows: slice) -> np.ndarray:
        error = predicted[rows] - minutes[rows]
        return np.stack([error**2, np.abs(error), minutes[rows], minutes[rows] ** 2], axis=1)

    tracemalloc.start()
    bootstrap.resampled_means(columns, n_rows, seed=42, n_resamples=N_RESAMPLES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


def resampling_seconds(env: Mapping[str, str]) -> float:
    """Resample in a separate process; return its CPU seconds."""
    command = [sys.executable, "-m", "bench.judging", str(FEW_ROWS)]
    env = {name: text for name, text in os.environ.items() if name not in KERNELS} | {**env}
    done = subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def logging_seconds() -> tuple[float, float]:
    """Report on a model and log it as a step does.

    Returns:
        CPU seconds of that without `predict`, and CPU seconds of `predict`.
    """
    model = fit_booster(simulate("2021-01"), simulate("2021-02"))
    with store() as uri:
        run(uri, "steps.preprocess", f"--source=simulated:{N_VALID}", "--test_months=")
        preprocess = read_preprocess(mlflow.get_run(run_id(uri, "preprocess")))
        valid, profiles = load_trips(preprocess, "valid"), read_profiles(preprocess.run_id)
        start = process_time()
        model.predict(valid)
        predicting = process_time() - start
        with runs.StepRun("hpo", "bench"):
            described = log_inputs(preprocess, {"valid": "validation"})
            lineage = Lineage("hpo", "xgboost", "full", preprocess, {})
            start = process_time()
            log_candidate(
                model, report_candidate(model, valid), profiles, lineage, described["valid"]
            )
            return process_time() - start - predicting, predicting


if __name__ == "__main__":
    measured = guess(int(sys.argv[1]))
    begun = process_time()
    bootstrap.rmse_improvement(*measured, seed=42)
    print(process_time() - begun)
