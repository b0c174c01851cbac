"""Train the boosters of a refit on the workers of a Dask cluster."""

import sys
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import dask.array as da
import distributed
import numpy as np
import xgboost as xgb
import xgboost.dask
from scipy.sparse import issparse
from xgboost.dask import DaskDMatrix, DaskQuantileDMatrix

import taxi
from steps.common.validate import TRAINING_PACKAGES, check_enough_workers
from storage import StorageError, UserError
from storage.cluster.connection import connected
from storage.cluster.executor import Cluster
from storage.cluster.tasks import once_per_worker
from taxi.batches import batches_of, to_memory
from taxi.boosting import learning_rate_callbacks, train_matrix
from taxi.fitting import BoosterSet, TrainSets, train_member
from taxi.recipes import Member
from taxi.rows import TrainingData

REFIT_HINT = "what is finished is kept: the same command goes on from there."


@contextmanager
def cluster_training(scheduler: str, *, on_gpu: bool, n_workers: int) -> Iterator[TrainSets]:
    """Yield the function that trains sets of boosters on the workers of a cluster.

    Args:
        scheduler: its address.
        on_gpu: whether the boosters are trained on GPUs.
        n_workers: workers that train each booster together; 0 = each is trained by one.
    Raises:
        StorageError: the scheduler does not answer, or its workers cannot be used.
    """
    code = [taxi, sys.modules[__name__]]
    on = connected(scheduler, code=code, packages=TRAINING_PACKAGES, on_gpus=on_gpu)
    with on as cluster, cluster.loss_as_error(lambda: REFIT_HINT):
        if n_workers:
            yield partial(
                train_distributed,
                cluster=cluster,
                workers=choose_workers(cluster, n_workers),
            )
        else:
            yield partial(train_in_parallel, cluster=cluster)


def train_in_parallel(sets: Sequence[BoosterSet], *, cluster: Cluster) -> list[list[xgb.Booster]]:
    """Train the boosters of all sets at the same time, each on one thread of a worker."""
    with ExitStack() as stack:
        futures = [_submit(one, cluster, stack) for one in sets]
        return [[future.result() for future in part] for part in futures]


def _submit(
    booster_set: BoosterSet, cluster: Cluster, stack: ExitStack
) -> "list[Future[xgb.Booster]]":
    data = booster_set.make_training_data()
    data = data._replace(matrix=to_memory(data.matrix))  # the encoder is not sent to the workers
    handle = stack.enter_context(cluster.hold(tuple(data)))
    submit = partial(cluster.submit, refit_on_worker, handle, uuid.uuid4().hex, booster_set.max_bin)
    return [submit(member) for member in booster_set.members]


def refit_on_worker(data: tuple[Any, ...], key: str, max_bin: int, member: Member) -> xgb.Booster:
    """Train a booster on a worker, where the boosters of a set share one matrix."""
    rows = once_per_worker(key, lambda: train_matrix(*TrainingData(*data), max_bin))
    return train_member(rows, max_bin, member)


# --- one booster over the memory of several workers


def choose_workers(cluster: Cluster, n_workers: int) -> list[str]:
    """Choose workers, and return their addresses in the order in which xgboost numbers them.

    Raises:
        UserError: there are too few.
    """
    check_enough_workers(n_workers, cluster)
    worker_states = cluster.client.scheduler_info()["workers"]
    ranks = {place: f"[xgboost.dask-{one['name']}]:{place}" for place, one in worker_states.items()}
    return sorted(ranks, key=ranks.__getitem__)[:n_workers]


def train_distributed(
    sets: Sequence[BoosterSet], *, cluster: Cluster, workers: Sequence[str]
) -> list[list[xgb.Booster]]:
    """Train one booster after the other, each on all workers, of which each has a part of the rows.

    Gradients are summed over the workers' parts, so the boosters differ from those of a single
    machine; with the same number of workers they are always the same.

    Raises:
        StorageError: a worker was lost or has too little memory for its part, or the cluster does
            not answer.
    """
    trained, cluster.needed = [], workers
    for one in sets:
        with ExitStack() as stack:
            rows = _distribute_rows(one, cluster, workers, stack)
            try:
                trained.append(
                    cluster.run_coroutine(_train_each(one, cluster, rows, workers)).result()
                )
            # from xgboost, which cannot go on without a worker, or from the network
            except (ValueError, RuntimeError, OSError) as error:
                why = str(error).partition("Stack trace")[0].strip().splitlines()[-1]
                raise StorageError(f"Workers did not end a refit ({why}); {REFIT_HINT}") from error
    return trained


def _distribute_rows(
    booster_set: BoosterSet, cluster: Cluster, workers: Sequence[str], stack: ExitStack
) -> "dict[str, da.Array]":
    """Have each worker fetch its part of the rows from here."""
    data = booster_set.make_training_data()
    if issparse(data.matrix):
        raise UserError(
            "refit_workers takes models of dense columns, features=compact or full: leave it out."
        )
    sizes = [len(rows) for rows in np.array_split(np.empty(len(data.minutes), bool), len(workers))]
    places: dict[str, list[da.Array]] = {"data": [], "label": [], "weight": []}
    first = 0
    for worker, matrix in zip(workers, split_rows(data.matrix, sizes), strict=True):
        rows = slice(first, first + len(matrix))
        weight = None if data.weight is None else data.weight[rows]
        for name, values in (("data", matrix), ("label", data.minutes[rows]), ("weight", weight)):
            if values is not None:
                handle = stack.enter_context(cluster.hold(values, worker))
                places[name].append(da.from_delayed(handle, values.shape, values.dtype))  # type: ignore[no-untyped-call]
        first = rows.stop
    return {name: da.concatenate(parts) for name, parts in places.items() if parts}  # type: ignore[no-untyped-call]


async def _train_each(
    one: BoosterSet, cluster: Cluster, rows: "dict[str, da.Array]", workers: Sequence[str]
) -> list[xgb.Booster]:
    trained = []
    with cluster.client.as_current():
        matrix = await DaskQuantileDMatrix(cluster.client, **rows, max_bin=one.max_bin)
        await _move_to_workers(matrix, cluster, workers)
        for member in one.members:
            parameters = {**member.parameters, "max_bin": one.max_bin}
            result = await xgboost.dask.train(
                cluster.client,
                parameters,
                matrix,
                member.rounds,
                callbacks=learning_rate_callbacks(member.rates()),
            )
            trained.append(result["booster"])
    return trained


async def _move_to_workers(matrix: DaskDMatrix, cluster: Cluster, workers: Sequence[str]) -> None:
    """Move each part of the rows to its own worker, since other places would change the boosters.

    Dask gives a part to an idle worker if its own is busy with somebody else's task.

    Raises:
        ValueError: a worker is gone.
    """
    number = matrix.partition_order
    held = {
        number[part.key]: (at, part) for at, parts in matrix.worker_map.items() for part in parts
    }
    places, parts = zip(*(held[place] for place in sorted(held)), strict=True)
    if list(places) == list(workers):
        return
    scheduler: Any = cluster.client.scheduler
    worker_states = (await scheduler.identity())["workers"]
    if not set(workers) <= set(worker_states):
        raise ValueError("one died, and another has its share of the rows")
    brought: list[distributed.Future[Any]] = [
        cluster.client.submit(dict, part, workers=[worker], pure=False)
        for worker, part in zip(workers, parts, strict=True)
    ]
    await distributed.wait(brought)
    matrix.worker_map = {worker: [part] for worker, part in zip(workers, brought, strict=True)}
    matrix.partition_order = {part.key: place for place, part in enumerate(brought)}


def split_rows(matrix: Any, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """Cut n rows into parts of these sizes, with one part at a time in memory."""
    batches, waiting = batches_of(matrix), np.empty((0, matrix.shape[1]), np.float32)
    for size in sizes:
        rows, n_rows = [waiting], len(waiting)
        while n_rows < size:
            rows.append(next(batches))
            n_rows += len(rows[-1])
        whole_rows = np.concatenate(rows)
        waiting = whole_rows[size:]
        yield whole_rows[:size]
