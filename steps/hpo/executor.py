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
from steps.common.device import SAME_EVERYWHERE
from storage import StorageError
from storage.cluster import connected, once_per_worker
from taxi.boosting import Outcome, Rows, TrainingJob, build_matrices, train_booster
from taxi.search import LAG


class TrialExecutor(NamedTuple):
    """Takes jobs, and says how many it does at once."""

    submit: Callable[[TrainingJob], "Future[Outcome]"]
    n_workers: int


@contextmanager
def open_executor(rows: Rows, args: argparse.Namespace) -> Iterator[TrialExecutor]:
    """Open the place that `scheduler` and `device` name; leaving it ends what still runs there.

    Raises:
        StorageError: nobody answers at the scheduler, or its workers cannot be used.
    """
    with (_on_cluster if args.scheduler else _here)(rows, args) as place:
        yield place


def n_waiting(place: TrialExecutor, n_parallel: int) -> int:
    """Say how many jobs wait beside those at once: one per slot, where they fill the place.

    So nobody there waits for the next one, and no more run at once than were asked for.
    """
    return max(2 * place.n_workers - n_parallel, 0) if n_parallel >= place.n_workers else 0


def lag_of(parallelism: int) -> int:
    """Say how many trials back a suggestion looks, so that so many can run at once.

    More than LAG only where it is asked for: from there on the search depends on the number.
    """
    return max(parallelism, LAG)


@contextmanager
def _here(rows: Rows, args: argparse.Namespace) -> Iterator[TrialExecutor]:
    # one GPU takes one trial at a time; several are workers of a cluster
    n_workers = args.parallelism or (1 if args.device == "cuda" else n_cores())
    matrices, stop = build_matrices(rows), Event()
    with ThreadPoolExecutor(n_workers) as executor:
        try:
            yield TrialExecutor(
                lambda job: executor.submit(train_booster, matrices, job, stop), n_workers
            )
        finally:
            stop.set()
            executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _on_cluster(rows: Rows, args: argparse.Namespace) -> Iterator[TrialExecutor]:
    with connected(
        args.scheduler,
        code=[taxi, sys.modules[__name__]],
        packages=SAME_EVERYWHERE,
        on_gpus=args.device == "cuda",
    ) as cluster:
        handle = cluster.scatter(tuple(rows))
        try:
            yield TrialExecutor(
                partial(cluster.submit, on_worker, handle, rows.key), cluster.n_workers
            )
        except CancelledError as error:
            raise StorageError(
                f"The Dask cluster at {args.scheduler} went away. Finished trials are kept: "
                f"the same command goes on from there."
            ) from error


def on_worker(rows: tuple[Any, ...], key: str, job: TrainingJob) -> Outcome:
    """Do a job on a worker, whose trials share one matrix."""
    matrices = once_per_worker(key, lambda: build_matrices(Rows(*rows)))
    return train_booster(matrices, job)


def n_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0))
