"""The boosters of a refit, trained on the workers of a Dask cluster."""

import sys
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import xgboost as xgb

import taxi
from steps.common.validate import TRAINING_PACKAGES
from storage.cluster import Cluster, connected, once_per_worker
from taxi.batches import whole
from taxi.boosting import train_matrix
from taxi.recipes import Member
from taxi.rows import TrainPart
from taxi.sight import BoosterSet, Train, train_member

REFIT_AGAIN = "what is finished is kept: the same command goes on from there."


@contextmanager
def training_on(scheduler: str, *, on_gpu: bool) -> Iterator[Train]:
    """Give what trains sets of boosters on all workers of a cluster.

    Args:
        scheduler: its address.
        on_gpu: whether the boosters are trained on GPUs.
    Raises:
        StorageError: nobody answers at the scheduler, or its workers cannot be used.
    """
    code = [taxi, sys.modules[__name__]]
    on = connected(scheduler, code=code, packages=TRAINING_PACKAGES, on_gpus=on_gpu)
    with on as cluster, cluster.gone_as(lambda: REFIT_AGAIN):
        yield partial(train_there, cluster=cluster)


def train_there(sets: Sequence[BoosterSet], *, cluster: Cluster) -> list[list[xgb.Booster]]:
    """Train the boosters of all sets at once, each in one thread of some worker."""
    with ExitStack() as stack:
        futures = [_submit(one, cluster, stack) for one in sets]
        return [[future.result() for future in part] for part in futures]


def _submit(one: BoosterSet, cluster: Cluster, stack: ExitStack) -> "list[Future[xgb.Booster]]":
    part = one.lay_out()
    part = part._replace(matrix=whole(part.matrix))  # what encodes trips does not travel
    handle = stack.enter_context(cluster.hold(tuple(part)))
    submit = partial(cluster.submit, refit_on_worker, handle, uuid.uuid4().hex, one.max_bin)
    return [submit(member) for member in one.members]


def refit_on_worker(part: tuple[Any, ...], key: str, max_bin: int, member: Member) -> xgb.Booster:
    """Train a booster on a worker, where those of a set share one matrix."""
    rows = once_per_worker(key, lambda: train_matrix(*TrainPart(*part), max_bin))
    return train_member(rows, max_bin, member)
