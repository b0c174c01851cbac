"""Months cleaned on the workers of a Dask cluster, and how much memory its scheduler uses."""

import resource
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
import pyarrow.parquet as pq
from distributed import Client

from bench import MIB, Result
from bench.search_workers import cluster
from steps.common.months import find_month
from steps.hpo.executor import open_executor
from steps.preprocess import MonthSource, write_splits
from storage.data.months import months_between
from taxi import spaces
from taxi.boosting import TrainingJob
from taxi.rows import Rows

TAXI, N_TRIPS, PAIRS = "green", 500_000, range(7)
MONTHS = months_between("2020-01", "2020-12")
N_ROWS, N_COLUMNS = 1_000_000, 32  # that a search sends to workers
MIB_BYTES, TRIP_BYTES = 1 << 20, 32


def measure() -> Iterator[Result]:
    """Clean twelve months on one single-threaded worker and on two, alternately."""
    with TemporaryDirectory() as folder, cluster(1) as alone, cluster(2) as both:
        for month in MONTHS:
            find_month(f"simulated:{N_TRIPS}", TAXI, month, Path(folder))
        for source, what in ((f"simulated:{N_TRIPS}", "simulated"), (folder, "parquet")):
            for address in (alone, both):
                clean_on(address, "simulated:1000")  # warms up the workers: they import all modules
            pairs = [(clean_on(alone, source)[0], clean_on(both, source)[0]) for _ in PAIRS]
            ratios = sorted(one / two for one, two in pairs)
            one, two = map(median, zip(*pairs, strict=True))
            yield Result(
                f"two Dask workers over one, cleaning 12 {what} months of {N_TRIPS:,} trips, "
                f"median of {len(PAIRS)} pairs ({ratios[0]:.2f}x to {ratios[-1]:.2f}x)",
                f"{median(ratios):.2f}x ({one:.1f} / {two:.1f} s)",
                "1.7x" if what == "simulated" else "",
            )
            (here, (worker,)), (_, two_workers) = (
                cpu_of_parts(alone, source),
                cpu_of_parts(both, source),
            )
            yield Result(
                "the same months: CPU of the busier of two workers over that of the only one; of "
                "the process that writes the trips",
                f"{max(two_workers) / worker:.2f}x; {here / worker:.2f}x ({max(two_workers):.1f}, "
                f"{here:.1f} / {worker:.1f} s)",
                "",
            )


def cpu_of_parts(address: str, source: str) -> tuple[float, list[float]]:
    """Clean the months; return the CPU seconds of this process, and of each worker.

    Even if other work keeps the cores busy, they show how much a second worker relieves the first.
    """
    with Client(address, set_as_default=False) as client:
        before, start = client.run(process_time), process_time()
        clean_on(address, source)
        here = process_time() - start
        after = client.run(process_time)
    return here, [after[worker] - before[worker] for worker in before]


def clean_on(address: str, source: str) -> tuple[float, float]:
    """Clean the months on a cluster; return the seconds, and the MiB of the trips."""
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        months, start = MonthSource(source, TAXI, Path(folder), reuse=False), perf_counter()
        write_splits({"train": MONTHS}, months, address)
        spent = perf_counter() - start
        n_trips = pq.read_metadata(Path(folder, "train.parquet")).num_rows
        return spent, n_trips * TRIP_BYTES / MIB_BYTES


def measure_memory() -> Iterator[Result]:
    """Measure how the scheduler's memory grows as a search sends rows and as months are cleaned."""
    matrix, minutes = np.zeros((N_ROWS, N_COLUMNS), np.float32), np.zeros(N_ROWS, np.float32)
    rows, n_mib = Rows(matrix, minutes, matrix[:1], minutes[:1]), matrix.nbytes / MIB_BYTES
    with cluster(2) as address, Client(address, set_as_default=False) as client:
        before = client.run_on_scheduler(peak_here)
        with open_executor(rows, scheduler=address, device="cpu", parallelism=0) as executor:
            jobs = [TrainingJob(dict(spaces.LOSSGUIDE), rounds=1, patience=1)] * 4
            for future in [executor.submit(job) for job in jobs]:
                future.result()
        grown = client.run_on_scheduler(peak_here) - before
        what = f"scheduler's memory over the rows of a search, {n_mib:.0f} MiB"
        yield Result(what, f"{grown / n_mib:.2f}x", "0.1x")
        clean_on(address, "simulated:1000")
        before = client.run_on_scheduler(peak_here)
        _, n_mib = clean_on(address, f"simulated:{N_TRIPS}")
        grown = client.run_on_scheduler(peak_here) - before
        what = f"scheduler's memory over the trips of 12 months that are cleaned, {n_mib:.0f} MiB"
        yield Result(what, f"{grown / n_mib:.2f}x", "0.1x")


def peak_here() -> float:
    """Return the peak memory of the current process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB
