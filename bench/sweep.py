"""A sweep of two by two: what its points share runs once, and a kill loses nothing finished."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import ROOT, Result
from bench.kills import all_runs, copy_of, find_harm, kill, log_of, make_store, results
from storage.tracking import tags

N_SWEEP_KILLS = 5
FILE = """\
source: simulated:1000
models: mean
max_evals: 3
half_life: [4, 8]
features: [compact, full]
"""


def measure() -> Iterator[Result]:
    """Sweep undisturbed and killed with SIGKILL at random moments, each in a store of its own."""
    chance = random.Random(0)
    with TemporaryDirectory() as folder:
        template, file = make_store(Path(folder, "template")), Path(folder, "sweep.yaml")
        file.write_text(FILE)
        with copy_of(template, Path(folder, "whole")) as uri:
            start = time.monotonic()
            if begin_sweep(uri, file).wait():
                raise RuntimeError(log_of(uri).read_text()[-2000:])
            seconds, whole, n_runs = time.monotonic() - start, results(uri), count_steps(uri)
        yield Result(
            "sweep of 2 x 2 over two parameters of `hpo`: runs of preprocess, baseline, hpo, main",
            ", ".join(map(str, n_runs)),
            "1, 1, 4, 4",
        )
        with copy_of(template, Path(folder, "killed")) as uri:
            n_repairs = harass_sweep(uri, file, chance, seconds / 3)
            harm = find_harm(uri, whole, n_repairs)
    yield Result(
        f"{N_SWEEP_KILLS} kills of it: results other than undisturbed, made twice, left RUNNING, "
        "mended by hand",
        ", ".join(map(str, harm)),
        "0, 0, 0, 0",
    )


def begin_sweep(uri: str, file: Path) -> "subprocess.Popen[bytes]":
    """Start the sweep in a process group of its own; what it says goes beside the store."""
    with log_of(uri).open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "steps.pipelines.sweep", f"--config={file}"],
            env=os.environ | {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def harass_sweep(uri: str, file: Path, chance: random.Random, within_s: float) -> int:
    """Kill the sweep, start it again, and at last let it end; returns the times it did not."""
    n_kills = n_repairs = 0
    while True:
        process = begin_sweep(uri, file)
        if n_kills < N_SWEEP_KILLS and kill(uri, process, chance, within_s, n_kills):
            n_kills += 1
        elif process.wait() == 0:
            return n_repairs
        else:
            n_repairs += 1
            print(log_of(uri).read_text()[-2000:], file=sys.stderr, flush=True)
            if n_repairs > N_SWEEP_KILLS:
                return n_repairs


def count_steps(uri: str) -> list[int]:
    """Count the finished runs of each step that a sweep starts."""
    steps = [run.data.tags.get(tags.STEP) for run in all_runs(uri) if run.info.status == "FINISHED"]
    return [steps.count(step) for step in ("preprocess", "baseline", "hpo", "main")]
