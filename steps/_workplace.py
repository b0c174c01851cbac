"""Where boosters are trained: in threads of this process, or on a Dask cluster."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any, NamedTuple

import taxi
from steps._device import SAME_EVERYWHERE
from storage import StorageError
from storage.cluster import connected, once_per_worker
from taxi.boosting import Job, Outcome, Rows, build_matrices, fit
from taxi.search import LAG


class Workplace(NamedTuple):
    """Takes jobs, and says how many it does at once."""

    submit: Callable[[Job], "Future[Outcome]"]
    n_slots: int


@contextmanager
def workplace(rows: Rows, args: argparse.Namespace) -> Iterator[Workplace]:
    """Open the place that `scheduler` and `device` name; leaving it ends what still runs there.

    Raises:
        StorageError: nobody answers at the scheduler, or its workers cannot be used.
    """
    with (_on_cluster if args.scheduler else _here)(rows, args) as place:
        yield place


def n_waiting(place: Workplace, n_parallel: int) -> int:
    """Say how many jobs wait beside those at once: one per slot, where they fill the place.

    So nobody there waits for the next one, and no more run at once than were asked for.
    """
    return max(2 * place.n_slots - n_parallel, 0) if n_parallel >= place.n_slots else 0


def lag_of(parallelism: int) -> int:
    """Say how many trials back a suggestion looks, so that so many can run at once.

    More than LAG only where it is asked for: from there on the search depends on the number.
    """
    return max(parallelism, LAG)


@contextmanager
def _here(rows: Rows, args: argparse.Namespace) -> Iterator[Workplace]:
    # one GPU takes one trial at a time; several are workers of a cluster
    n_slots = args.parallelism or (1 if args.device == "cuda" else n_cores())
    matrices, stop = build_matrices(rows), Event()
    with ThreadPoolExecutor(n_slots) as executor:
        try:
            yield Workplace(lambda job: executor.submit(fit, matrices, job, stop), n_slots)
        finally:
            stop.set()
            executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _on_cluster(rows: Rows, args: argparse.Namespace) -> Iterator[Workplace]:
    with connected(
        args.scheduler,
        code=[taxi, sys.modules[__name__]],
        packages=SAME_EVERYWHERE,
        on_gpus=args.device == "cuda",
    ) as cluster:
        handle = cluster.scatter(tuple(rows))
        try:
            yield Workplace(partial(cluster.submit, on_worker, handle, rows.key), cluster.n_slots)
        except CancelledError as error:
            raise StorageError(
                f"The Dask cluster at {args.scheduler} went away. Finished trials are kept: "
                f"the same command goes on from there."
            ) from error


def on_worker(rows: tuple[Any, ...], key: str, job: Job) -> Outcome:
    """Do a job on a worker, whose trials share one matrix."""
    matrices = once_per_worker(key, lambda: build_matrices(Rows(*rows)))
    return fit(matrices, job)


def n_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0))
