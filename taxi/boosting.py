"""One trial: train a booster until it stops improving, falls behind or is told to stop."""

import hashlib
from collections.abc import Mapping, Sequence
from threading import Event
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import xgboost as xgb
from scipy.sparse import issparse
from xgboost.callback import TrainingCallback

from .features import Encoder
from .schema import Trips
from .spaces import Pruning


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


class PruningThreshold(NamedTuple):
    """What a trial must be extrapolated_rmse for, or it is pruned."""

    rmse: float
    rule: Pruning

    def is_missed(self, curve: Sequence[float]) -> bool:
        """Tell whether a trial with this curve so far is to be given up."""
        if len(curve) < self.rule.warmup_rounds:
            return False
        return extrapolated_rmse(curve, self.rule.n_doublings) > self.rmse


def extrapolated_rmse(curve: Sequence[float], n_doublings: int) -> float:
    """Say what a falling curve comes to when its rounds have doubled so many times.

    What the last doubling gained, each one to come gains again, shrunk every time as it shrank
    the last time.
    """
    best = np.minimum.accumulate(curve)
    quarter, half, now = best[len(best) // 4], best[len(best) // 2], best[-1]
    shrinks = min((half - now) / (quarter - half), 1.0) if quarter > half else 1.0
    to_come = sum(shrinks**doubling for doubling in range(1, n_doublings + 1))
    return float(now - (half - now) * to_come)


class _Watch(TrainingCallback):  # type: ignore[misc]
    """Ends training that is not worth going on with."""

    def __init__(self, bar: PruningThreshold | None, stop: Event | None) -> None:
        super().__init__()
        self.bar = bar
        self.stop = stop
        self.pruned = False

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Tell whether to end training after this round."""
        self.pruned = self.bar is not None and self.bar.is_missed(evals_log["valid"]["rmse"])
        return self.pruned or (self.stop is not None and self.stop.is_set())


class TrainingJob(NamedTuple):
    """What it takes to train one booster, beside the rows."""

    parameters: Mapping[str, Any]  # xgboost's
    rounds: int  # at most so many trees
    patience: int  # rounds without a better RMSE that end it
    bar: PruningThreshold | None = None  # what it must be extrapolated_rmse for
    keep: bool = False  # give the booster back too


def train_booster(matrices: Matrices, job: TrainingJob, stop: Event | None = None) -> Outcome:
    """Train until valid RMSE no longer improves, falls behind, or `stop` is set from outside."""
    curves: dict[str, dict[str, list[float]]] = {}
    watch = _Watch(job.bar, stop)
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
