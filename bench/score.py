"""Scoring months in bulk: rows per second and peak memory; and the time of the gate's bootstrap."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from bench import DATA, Result, peak_mib
from bench.serving import as_served, load, timed, train_model
from steps.common.months import find_month
from steps.score.month import ScoringJob, write_predictions
from storage.tracking import models
from taxi import bootstrap, scoring
from taxi.spread import Calibration, fit_spread

MONTH, N_ROUNDS = "2023-02", 3
N_TRIPS, N_ROWS = 1_000_000, 60_000


def measure() -> Iterator[Result]:
    """Score a real month as the step does, and simulated months in separate processes."""
    yield throughput()
    yield memory()
    yield resampling()


def throughput() -> Result:
    """Time scoring a real month from file to file, and predicting it in memory, alternately."""
    train, valid = load("2023-01"), load(MONTH)
    model = train_model(train, valid)
    answers = model.predict(valid), model.predict(valid.without_distance())
    # with a spread, as models are logged, so that expected losses are counted for each row too
    spread = fit_spread(Calibration(valid, *answers))
    served = as_served(model.with_spread(spread), valid)
    file = find_month(str(DATA), "green", MONTH, Path())
    frame = in_memory(file.path)
    bare, whole = [], []
    with TemporaryDirectory() as folder:
        job = ScoringJob("green", str(DATA), "bench", folder, "", "")
        for _ in range(N_ROUNDS):
            bare.append(timed(lambda: models.predict_typed(served, frame, "bench"), 1))
            whole.append(
                timed(
                    lambda: write_predictions(
                        job, MONTH, file, Path(folder, "out.parquet"), served
                    ),
                    1,
                )
            )
    what = "score, rows/s over rows/s of the model's own predict on frames in memory"
    return Result(what, f"{median(bare) / median(whole):.2f}", "0.7")


def in_memory(source: Path) -> pd.DataFrame:
    """Read the rows of a month that can be predicted, as one frame."""
    (batch,) = pq.read_table(source).combine_chunks().to_batches()
    return scoring.request_frame(scoring.prepare_batch(batch, taxi="green", month=MONTH), "green")


def memory() -> Result:
    """Measure the step's peak memory on twelve simulated months relative to one."""
    with TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        model = make_model(uri)
        one, twelve = (peak_of(uri, model, months) for months in ("2020-01", "2020-01..2020-12"))
    what = f"score, peak memory of 12 months of {N_TRIPS:,} trips over 1"
    return Result(what, f"{twelve / one:.2f}x ({twelve:.0f} / {one:.0f} MiB)", "1.2x")


def make_model(uri: str) -> str:
    """Fit a baseline that answers quickly, in its own store; return the model's URI."""
    env = os.environ | {"MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, "-m", "steps.baseline", "--source=simulated:20000"]
    command += ["--models=hist_gradient_boosting", "--test_months="]
    subprocess.run(command, env=env, check=True, capture_output=True)
    mlflow.set_tracking_uri(uri)
    (run,) = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.candidate = 'true'", output_format="list"
    )
    return str(run.data.tags["model_uri"])


def peak_of(uri: str, model: str, months: str) -> float:
    """Score simulated months; return the process's peak resident memory, MiB."""
    with TemporaryDirectory() as folder:
        words = (f"--months={months}", f"--model_uri={model}", f"--output={folder}/out")
        return peak_mib(uri, "steps.score", f"--source=simulated:{N_TRIPS}", *words)


def resampling() -> Result:
    """Time the bootstrap of two models' paired difference on a real month's number of trips."""
    rng = np.random.default_rng(42)
    minutes = rng.uniform(1, 60, N_ROWS)
    candidate, champion = (minutes + rng.normal(0, 5, N_ROWS) for _ in range(2))
    start = perf_counter()
    bootstrap.rmse_improvement(minutes, candidate, champion, seed=42)
    what = f"bootstrap of {N_ROWS:,} rows, {bootstrap.N_RESAMPLES:,} resamples"
    return Result(what, f"{perf_counter() - start:.1f} s", "5 s")
