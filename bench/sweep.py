"""A two-by-two sweep: shared work must run once, and kills must lose nothing that was finished."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import Result
from bench.kills import all_runs, begin, copy_of, find_harm, harass, log_of, make_store, results
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
    """Sweep undisturbed, and with SIGKILLs at random moments, each in its own store."""
    with TemporaryDirectory() as folder:
        template, file = make_store(Path(folder, "template")), Path(folder, "sweep.yaml")
        file.write_text(FILE)
        words = ("steps.pipelines.sweep", f"--config={file}")
        with copy_of(template, Path(folder, "whole")) as uri:
            start = time.monotonic()
            if begin(uri, words).wait():
                raise RuntimeError(log_of(uri).read_text()[-2000:])
            seconds, whole, n_runs = time.monotonic() - start, results(uri), count_steps(uri)
        yield Result(
            "sweep of 2 x 2 over two parameters of `hpo`: runs of preprocess, baseline, hpo, main",
            ", ".join(map(str, n_runs)),
            "1, 1, 4, 4",
        )
        with copy_of(template, Path(folder, "killed")) as uri:
            n_kills, n_repairs = harass(uri, random.Random(0), seconds / 3, 0, N_SWEEP_KILLS, words)
            harm = find_harm(uri, whole, n_repairs)
    yield Result(
        f"{n_kills} kills of it: results other than undisturbed, made twice, left RUNNING, "
        "mended by hand",
        ", ".join(map(str, harm)),
        "0, 0, 0, 0",
    )


def count_steps(uri: str) -> list[int]:
    """Count the finished runs of each step that a sweep starts."""
    steps = [run.data.tags.get(tags.STEP) for run in all_runs(uri) if run.info.status == "FINISHED"]
    return [steps.count(step) for step in ("preprocess", "baseline", "hpo", "main")]
