"""One trial: train a booster until it stops improving, falls behind or is told to stop."""

import hashlib
from collections.abc import Mapping
from threading import Event
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import xgboost as xgb
from scipy.sparse import issparse
from xgboost.callback import TrainingCallback

from .features import Encoder
from .schema import Trips


class Rows(NamedTuple):
    """What trials train on and stop by, as plain arrays that travel to any worker."""

    train: Any  # [n, k] float32, or CSR
    train_y: np.ndarray  # minutes [n]
    valid: Any  # [m, k] of the same kind
    valid_y: np.ndarray  # minutes [m]

    @property
    def key(self) -> str:
        """Hash every value: the same rows, whatever features and months they were made from."""
        digest = hashlib.sha256()
        for part in self:
            for values in _arrays(part):
                digest.update(f"{values.dtype} {part.shape} ".encode())
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def _arrays(part: Any) -> tuple[np.ndarray, ...]:
    return (part.indptr, part.indices, part.data) if issparse(part) else (part,)


def make_rows(encoder: Encoder, train: Trips, valid: Trips) -> Rows:
    """Encode the trips an encoder was fitted on, and those that trials are judged by."""
    matrix = encoder.transform_train(train)
    return Rows(matrix, train.trip_minutes, encoder.transform(valid), valid.trip_minutes)


class Matrices(NamedTuple):
    """Train and valid rows as xgboost holds them, shared by all trials of a process."""

    train: xgb.DMatrix
    valid: xgb.DMatrix


class Outcome(NamedTuple):
    """What training one booster came to."""

    rmse: float  # minutes, on valid, at the best round
    best_round: int  # counted from 0
    curve: list[float]  # valid RMSE after each round
    seconds: float
    pruned: bool  # it fell behind earlier trials and was given up
    booster: xgb.Booster | None  # cut to its best round; None where only the score was asked for


def build_matrices(rows: Rows) -> Matrices:
    """Bin dense features once for all trials; leave the sparse one-hot as it is."""
    # one-hot columns gain nothing from bins and cost ninefold; and to judge by a matrix of bins,
    # xgboost looks each value up again in every round, which took half of a trial's time
    is_dense = isinstance(rows.train, np.ndarray)
    train = (xgb.QuantileDMatrix if is_dense else xgb.DMatrix)(rows.train, rows.train_y)
    return Matrices(train, xgb.DMatrix(rows.valid, rows.valid_y))


class _Watch(TrainingCallback):  # type: ignore[misc]
    """Ends training that is not worth going on with."""

    def __init__(self, limits: np.ndarray | None, stop: Event | None) -> None:
        super().__init__()
        self.limits = np.empty(0) if limits is None else limits
        self.stop = stop
        self.best = np.inf
        self.pruned = False

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Tell whether to end training after this round."""
        self.best = min(self.best, evals_log["valid"]["rmse"][-1])
        self.pruned = epoch < len(self.limits) and self.best > self.limits[epoch]
        return self.pruned or (self.stop is not None and self.stop.is_set())


class Job(NamedTuple):
    """What it takes to train one booster, beside the rows."""

    parameters: Mapping[str, Any]  # xgboost's
    rounds: int  # at most so many trees
    patience: int  # rounds without a better RMSE that end it
    limits: np.ndarray | None = (
        None  # [r] best RMSE so far, round by round, above which it is pruned
    )
    keep: bool = False  # give the booster back too


def fit(matrices: Matrices, job: Job, stop: Event | None = None) -> Outcome:
    """Train until valid RMSE no longer improves, falls behind, or `stop` is set from outside."""
    curves: dict[str, dict[str, list[float]]] = {}
    watch = _Watch(job.limits, stop)
    start = perf_counter()
    booster = xgb.train(
        dict(job.parameters),
        matrices.train,
        job.rounds,
        evals=[(matrices.valid, "valid")],
        early_stopping_rounds=job.patience,
        evals_result=curves,
        verbose_eval=False,
        callbacks=[watch],
    )
    curve = curves["valid"]["rmse"]
    best_round = int(np.argmin(curve))
    return Outcome(
        rmse=curve[best_round],
        best_round=best_round,
        curve=curve,
        seconds=perf_counter() - start,
        pruned=watch.pruned,
        booster=booster[: best_round + 1] if job.keep else None,
    )
