"""How trials best share a machine: threads per trial, trials at once, workers of a Dask cluster."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from distributed import Client

from bench import Result
from bench.search_lab import SEED, real_rows, searched
from storage.tracking.processes import n_cores
from taxi import spaces
from taxi.boosting import Matrices, TrainingJob, build_matrices, train_booster

N_JOBS, N_JOB_ROUNDS = 8, 60
N_TRIALS, N_ROUNDS, N_PAIRS = 32, 100, 3  # of the search on the cluster
STARTS_S = 60  # seconds within which a scheduler or a worker must answer


def measure_threads() -> Iterator[Result]:
    """Train the same boosters with different numbers at once, and of threads each."""
    cores, matrices = n_cores(), build_matrices(real_rows("2021"))
    ways = {(1, 1), (1, cores), (cores, 1), (cores, cores), (max(cores // 2, 1), 2)}
    rates = {way: jobs_per_second(matrices, *way) for way in sorted(ways)}
    one = rates.pop((1, 1))
    for (at_once, threads), rate in rates.items():
        is_chosen = " (parallelism=0)" if (at_once, threads) == (cores, 1) else ""
        yield Result(
            f"trials per second, {at_once} at once on {threads} threads each{is_chosen}, over "
            "one on one thread",
            f"{rate / one:.2f}x",
            "",
        )


def jobs_per_second(matrices: Matrices, at_once: int, threads: int) -> float:
    """Train N_JOBS boosters, one at a time in this thread or several in a pool: jobs per second."""
    space = spaces.select_space("lossguide")
    parameters = {**space.fixed, **space.first[0], "seed": SEED, "nthread": threads}
    job = TrainingJob(parameters, N_JOB_ROUNDS, patience=N_JOB_ROUNDS)
    start = perf_counter()
    if at_once == 1:
        for _ in range(N_JOBS):
            train_booster(matrices, job)
    else:
        with ThreadPoolExecutor(at_once) as executor:
            list(executor.map(lambda _: train_booster(matrices, job), range(N_JOBS)))
    return N_JOBS / (perf_counter() - start)


def measure_dask() -> Iterator[Result]:
    """Search on one single-threaded worker and on two, alternately, N_PAIRS times."""
    pairs = [(trials_per_second_on(1), trials_per_second_on(2)) for _ in range(N_PAIRS)]
    ratios = sorted(two / one for one, two in pairs)
    one, two = map(median, zip(*pairs, strict=True))
    yield Result(
        f"two Dask workers over one, trials per second, median of {N_PAIRS} pairs "
        f"({ratios[0]:.2f}x to {ratios[-1]:.2f}x)",
        f"{median(ratios):.2f}x ({two:.2f} / {one:.2f})",
        "1.85x",
    )


def trials_per_second_on(n_workers: int) -> float:
    """Search on a fresh cluster whose workers have the matrix already; return trials a second."""
    space = replace(
        spaces.select_space("lossguide"),
        # all trials of the same length
        rounds=N_ROUNDS,
        patience=N_ROUNDS,
        pruning=None,
        n_boosters=1,
    )
    rows = real_rows("2021")
    with cluster(n_workers) as address:
        searched(space, rows, scheduler=address, max_evals=n_workers)
        return per_second(searched(space, rows, scheduler=address, max_evals=N_TRIALS).spans)


def per_second(spans: list[tuple[int, int]]) -> float:
    """Return the trials per second until the last trial started, since no worker idles before.

    A trial that was running at that moment counts by the share of it that was done.
    """
    first, last = min(spans)[0], max(spans)[0]
    n_done = sum(min((last - start) / (end - start), 1.0) for start, end in spans)
    return 1000 * n_done / (last - first)


@contextmanager
def cluster(n_workers: int) -> Iterator[str]:
    """Start a scheduler and single-threaded workers on loopback; yield the address."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        found = Path(folder, "scheduler.json")
        started(stack, "scheduler", "--host=127.0.0.1", "--port=0", f"--scheduler-file={found}")
        for _ in range(n_workers):
            # without a nanny, which would be another process on the same cores
            started(stack, "worker", f"--scheduler-file={found}", "--nthreads=1", "--no-nanny")
        client = Client(scheduler_file=str(found), timeout=STARTS_S, set_as_default=False)
        with client:
            client.wait_for_workers(n_workers, timeout=STARTS_S)
            yield str(client.scheduler_info()["address"])


def started(stack: ExitStack, *command: str) -> None:
    """Start a Dask process, which ends with the stack."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *command, "--no-dashboard"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as a nanny would set it
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
