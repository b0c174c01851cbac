"""Where boosters are trained: in threads of this process, or on a Dask cluster."""

import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Event
from time import thread_time
from typing import Any, NamedTuple

import taxi
from steps.common.validate import TRAINING_PACKAGES
from storage.cluster.connection import connected
from storage.cluster.executor import Cluster
from storage.cluster.tasks import once_per_worker
from storage.scratch import scratch_folder
from storage.tracking.cost import PER_MEGABYTE
from storage.tracking.processes import n_cores
from taxi.boosting import (
    Matrices,
    Outcome,
    TrainingJob,
    build_matrices,
    n_bytes_of_bins,
    train_booster,
)
from taxi.rows import Rows
from taxi.threads import thread_pool

RESUME_HINT = "finished trials are kept: the same command goes on from there."


class TrialExecutor(NamedTuple):
    """Trains boosters, n_workers at once."""

    submit: Callable[[TrainingJob], "Future[Outcome]"]
    n_workers: int
    cluster: Cluster | None = None  # None = this process

    def loss_as_error(self, hint: Callable[[], str]) -> AbstractContextManager[None]:
        """Turn the loss of the cluster into a one-line error that ends with a hint."""
        return self.cluster.loss_as_error(hint) if self.cluster else nullcontext()

    def n_waiting(self, n_parallel: int) -> int:
        """Return how many jobs to queue beside n_parallel running ones: 0 if workers are idle.

        A queued job per worker saves it the wait for its next one; where workers are idle, queued
        jobs would run at once, and be more than were asked for.
        """
        return max(2 * self.n_workers - n_parallel, 0) if n_parallel >= self.n_workers else 0


@contextmanager
def open_executor(
    rows: Rows, *, scheduler: str, device: str, parallelism: int
) -> Iterator[TrialExecutor]:
    """Open the executor that was asked for; leaving the context stops jobs that still run.

    Args:
        rows: that every job trains on.
        scheduler: address of a Dask scheduler; empty = threads of this process.
        device: cpu or cuda.
        parallelism: threads here; 0 = one per core; a GPU takes one trial at a time.
    Raises:
        StorageError: the scheduler does not answer, or its workers cannot be used.
    """
    on_gpu = device == "cuda"
    if scheduler:
        opened = _cluster_executor(rows, scheduler, on_gpu)
    else:
        # two threads would build bins on the GPU at once, which kills the process; to use several
        # GPUs, make them workers of a cluster
        opened = _local_executor(rows, 1 if on_gpu else parallelism or n_cores(), on_gpu)
    with opened as executor:
        yield executor


@contextmanager
def _local_executor(rows: Rows, n_workers: int, on_gpu: bool) -> Iterator[TrialExecutor]:
    stop, n_bytes = Event(), n_bytes_of_bins(rows.train, on_gpu=on_gpu)
    with scratch_folder(n_bytes) as folder, thread_pool(n_workers) as threads:
        built = [build_matrices(rows, folder)]

        def submit(job: TrainingJob) -> "Future[Outcome]":
            return threads.submit(train_measured, built[0], job, stop)

        try:
            yield TrialExecutor(submit, n_workers)
        finally:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
            built.clear()  # closes the file of bins before its folder is deleted


@contextmanager
def _cluster_executor(rows: Rows, scheduler: str, on_gpu: bool) -> Iterator[TrialExecutor]:
    code = [taxi, sys.modules[__name__]]
    rows = rows.to_memory()  # encoded here: the encoder is not sent to the workers
    on = connected(scheduler, code=code, packages=TRAINING_PACKAGES, on_gpus=on_gpu)
    with (
        on as cluster,
        cluster.loss_as_error(lambda: RESUME_HINT),
        cluster.hold(tuple(rows)) as handle,
    ):
        submit = partial(cluster.submit, train_on_worker, handle, rows.key)
        yield TrialExecutor(submit, cluster.n_workers, cluster)


def train_measured(matrices: Matrices, job: TrainingJob, stop: Event | None = None) -> Outcome:
    """Do a job, all of it in this thread, and measure its CPU seconds and peak memory."""
    before = thread_time()
    outcome = train_booster(matrices, job, stop)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PER_MEGABYTE
    return outcome._replace(cpu_seconds=thread_time() - before, peak_megabytes=peak)


def train_on_worker(rows: tuple[Any, ...], key: str, job: TrainingJob) -> Outcome:
    """Do a job on a worker, all of whose jobs share one matrix."""
    matrices = once_per_worker(key, lambda: build_matrices(Rows(*rows)))
    return train_measured(matrices, job)
