"""Kill `backtest` with SIGKILL at random moments: nothing may differ, no step may run twice."""

import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import Result
from bench.kills import begin, copy_of, find_harm, harass, log_of, make_store, results

N_KILLS = 5
WORDS = (
    *("steps.pipelines.backtest", "--source=simulated:300", "--models=mean", "--max_evals=2"),
    *("--months=2021-06..2021-11", "--window=2", "--horizon=2"),
)


def measure() -> Iterator[Result]:
    """Run six folds undisturbed, then in another store with kills, as `kills` does with main."""
    with TemporaryDirectory() as folder:
        template = make_store(Path(folder, "template"))
        with copy_of(template, Path(folder, "undisturbed")) as uri:
            start = time.monotonic()
            if begin(uri, WORDS).wait():
                raise RuntimeError(log_of(uri).read_text()[-3000:])
            seconds, whole, said = time.monotonic() - start, results(uri), log_of(uri).read_text()
        print(said, file=sys.stderr, flush=True)
        times = Counter(re.findall(r"^\w+ (\S+): kept .* trips$", said, re.MULTILINE))
        yield Result(
            f"`backtest` of 6 months, window 2: times that each of {len(times)} months is cleaned",
            str(max(times.values())),
            "1",
        )
        with copy_of(template, Path(folder, "killed")) as uri:
            within_s = seconds / (N_KILLS - 1)
            n_kills, n_repairs = harass(uri, random.Random(0), within_s, 0, N_KILLS, WORDS)
            harm = find_harm(uri, whole, n_repairs)
    yield Result(
        f"the same killed {n_kills} times: results other than undisturbed, steps run twice, left "
        "RUNNING, mended by hand",
        ", ".join(map(str, harm)),
        "0, 0, 0, 0",
    )
