"""Training on many trips: peak memory of hpo, and the cost of a refit by how rows reach xgboost.

`python -m bench flat`. It runs, in separate processes, `python -m bench.flat refit WAY FILE
THREADS ROUNDS`, and `python -m bench.flat hpo ...`, whose boosters have only a few rounds.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench import MIB, ROOT, Result, peak_mib
from bench.search_lab import run_id
from bench.serving import load
from steps.hpo import __main__ as hpo
from storage.scratch import scratch_folder
from storage.tracking.processes import n_cores
from taxi import boosting, encoding, features, fitting, schema, spaces
from taxi.cleaning import clean
from taxi.recipes import FINE_BINS, Member, Recipe
from taxi.simulation import month_batches

N_TRIPS, MONTH, SEED = 3_000_000, "2021-01", 42
REAL_MONTHS, N_COPIES = ("2022-01", "2022-02", "2023-01", "2023-02"), 8
N_PAIRS = 3
N_ROUNDS, N_HPO_ROUNDS = 100, 5
# way -> MAX_ROWS_IN_MEMORY and MAX_ROWS_BINNED_IN_MEMORY, the limits that make rows take it
WAYS = {"in memory": (sys.maxsize, 0), "in batches": (0, sys.maxsize), "from a file": (0, 0)}


def measure_hpo() -> Iterator[Result]:
    """Search on one and on twelve simulated months of a million trips each."""
    one, twelve = (peak_of_hpo(months) for months in ("2020-01", "2020-01..2020-12"))
    what = "hpo, 3 trials and the refit, peak memory of 12 months of 1,000,000 train trips over 1"
    yield Result(what, f"{twelve / one:.2f}x ({twelve:.0f} / {one:.0f} MiB)", "1.5x")


def peak_of_hpo(train_months: str) -> float:
    """Run the step on preprocessed months; return its peak resident memory, MiB."""
    with TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        preprocess(uri, train_months)
        given = f"--preprocess_run_id={run_id(uri, 'preprocess')}"
        return peak_mib(uri, "bench.flat", "hpo", given, "--max_evals=3")


def preprocess(uri: str, train_months: str) -> float:
    """Preprocess simulated months of a million trips in a store; return the peak memory, MiB."""
    months = (f"--train_months={train_months}", "--valid_months=2021-01", "--test_months=")
    return peak_mib(uri, "steps.preprocess", "--source=simulated:1000000", *months)


def measure_refit() -> Iterator[Result]:
    """Fit one booster to the same rows in each way, alternately."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "trips.parquet")
        write_trips(path)
        whole, *others = (run_refit(way, path, n_cores()) for way in WAYS)
    for one in others:
        times = f"{one['wall'] / whole['wall']:.2f}x ({one['wall']:.0f} / {whole['wall']:.0f} s)"
        same = "equal" if one["sha256"] == whole["sha256"] else "OTHER"
        yield Result(
            f"refit of one booster to {one['n_rows']:,} rows, {N_ROUNDS} rounds, {one['way']} over "
            "in memory: time; CPU; peak memory; bytes of the booster",
            f"{times}; {one['cpu'] / whole['cpu']:.2f}x; {one['mib'] / whole['mib']:.2f}x "
            f"({one['mib']:.0f} / {whole['mib']:.0f} MiB); {same}",
            "1.6x; ; ; equal",
        )


def measure_threads() -> Iterator[Result]:
    """Fit one booster to many copies of real trips, on all cores and on one, alternately."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "trips.parquet")
        write_real_trips(path)
        ways = (1, n_cores())
        told = [[run_refit("in memory", path, n) for n in ways] for _ in range(N_PAIRS)]
    one, every = (min(pair[place]["wall"] for pair in told) for place in (0, 1))
    n_other = len({fit["sha256"] for pair in told for fit in pair}) - 1
    yield Result(
        f"refit of one booster to {told[0][0]['n_rows']:,} rows, {N_ROUNDS} rounds, on {ways[1]} "
        f"cores over one, the best of {N_PAIRS} each: time; other bytes of the booster",
        f"{every / one:.2f}x ({every:.1f} / {one:.1f} s); {n_other}",
        "below 1x; 0",
    )


def write_real_trips(path: Path) -> None:
    """Write N_COPIES copies of real months, which give trees much to learn."""
    parts = [{name: getattr(load(m), name) for name in schema.TRIPS.names} for m in REAL_MONTHS]
    tables = [pa.Table.from_pydict(part, schema=schema.TRIPS) for part in parts]
    pq.write_table(pa.concat_tables(tables * N_COPIES), path)


def write_trips(path: Path) -> None:
    """Simulate and clean a month; keep the trips with a distance, which a refit trains apart."""
    with pq.ParquetWriter(path, schema.TRIPS) as file:
        for raw in month_batches(MONTH, N_TRIPS, SEED):
            trips = clean(raw, taxi="green", month=MONTH).trips
            known = schema.is_plausible_distance(
                trips.column("distance_miles").to_numpy(zero_copy_only=False)
            )
            file.write_batch(trips.filter(pa.array(known)))


def run_refit(way: str, path: Path, n_threads: int) -> dict[str, Any]:
    """Fit in a separate process; return what it cost."""
    given = map(str, (way, path, n_threads, N_ROUNDS))
    told = subprocess.run(
        [sys.executable, "-m", "bench.flat", "refit", *given],
        cwd=ROOT,
        env={"OMP_WAIT_POLICY": "passive"} | os.environ,  # as in a step
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return dict(json.loads(told))


def refit(way: str, path: str, n_threads: str, n_rounds: str) -> None:
    """Fit one booster and print what it cost, as JSON."""
    encoding.MAX_ROWS_IN_MEMORY, boosting.MAX_ROWS_BINNED_IN_MEMORY = WAYS[way]
    trips = schema.to_trips(pq.read_table(path))
    space = spaces.select_space("lossguide")
    point = dict(space.fixed) | space.parameters(1, space.first[0]) | {"seed": SEED}
    recipe = Recipe("full", SEED, members=(Member(point, int(n_rounds)),), max_bin=FINE_BINS)
    encoder = features.fit_encoder("full", trips)
    start, before = perf_counter(), process_time()
    train = partial(fitting.train_locally, n_threads=int(n_threads), scratch=scratch_folder)
    model = fitting.fit_boosters(recipe, trips, "green", encoder, train)
    told = {
        "way": way,
        "n_rows": len(trips),
        "wall": perf_counter() - start,
        "cpu": process_time() - before,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB,
        "sha256": hashlib.sha256(model.to_files()["booster-000.ubj"]).hexdigest(),
    }
    print(json.dumps(told))


def search_shortly(*arguments: str) -> None:
    """Run the step hpo with only a few rounds for each booster."""
    short = replace(spaces.select_space("lossguide"), rounds=N_HPO_ROUNDS)
    spaces.SEARCH_SPACES["lossguide"] = short
    hpo.main(arguments)


if __name__ == "__main__":
    refit(*sys.argv[2:]) if sys.argv[1] == "refit" else search_shortly(*sys.argv[2:])
