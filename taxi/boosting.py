"""One trial: train a booster until it stops improving, is pruned or is stopped from outside."""

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
    """What trials are trained and scored on, as plain arrays that travel to any worker."""

    train: Any  # [n, k] float32, or CSR
    train_y: np.ndarray  # minutes [n]
    valid: Any  # [m, k] of the same kind
    valid_y: np.ndarray  # minutes [m]

    @property
    def key(self) -> str:
        """Hash of all values: equal for equal rows, whatever features and months made them."""
        digest = hashlib.sha256()
        for part in self:
            for values in _arrays(part):
                digest.update(f"{values.dtype} {part.shape} ".encode())
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def _arrays(part: Any) -> tuple[np.ndarray, ...]:
    return (part.indptr, part.indices, part.data) if issparse(part) else (part,)


def make_rows(encoder: Encoder, train: Trips, valid: Trips) -> Rows:
    """Encode the n trips an encoder was fitted on, and m trips that trials are scored on."""
    matrix = encoder.transform_train(train)
    return Rows(matrix, train.trip_minutes, encoder.transform(valid), valid.trip_minutes)


class Matrices(NamedTuple):
    """Train and valid rows as xgboost holds them, shared by all trials of a process."""

    train: xgb.DMatrix
    valid: xgb.DMatrix


class Outcome(NamedTuple):
    """The result of training one booster."""

    rmse: float  # minutes, on valid, at the best round
    best_round: int  # counted from 0
    curve: list[float]  # valid RMSE after each round
    seconds: float
    pruned: bool  # it missed its pruning threshold
    booster: xgb.Booster | None  # cut to its best round; None where only the score was asked for


def build_matrices(rows: Rows) -> Matrices:
    """Convert rows for xgboost: dense features are binned once for all trials, one-hot is not."""
    # one-hot columns gain nothing from bins and cost ninefold; and to judge by a matrix of bins,
    # xgboost looks each value up again in every round, which took half of a trial's time
    is_dense = isinstance(rows.train, np.ndarray)
    train = (xgb.QuantileDMatrix if is_dense else xgb.DMatrix)(rows.train, rows.train_y)
    return Matrices(train, xgb.DMatrix(rows.valid, rows.valid_y))


class PruningThreshold(NamedTuple):
    """The RMSE that a trial's extrapolated curve must reach, or the trial is pruned."""

    rmse: float  # minutes
    rule: Pruning

    def is_missed(self, curve: Sequence[float]) -> bool:
        """Whether a trial with this curve so far, a valid RMSE a round, is to be pruned."""
        if len(curve) < self.rule.warmup_rounds:
            return False
        return extrapolated_rmse(curve, self.rule.n_doublings) > self.rmse


def extrapolated_rmse(curve: Sequence[float], n_doublings: int) -> float:
    """Extrapolate a falling curve to where its rounds have doubled so many times.

    What the last doubling gained, each one to come gains again, shrunk every time as it shrank
    the last time.

    Args:
        curve: valid RMSE after each round so far, minutes; one at least.
        n_doublings: of the rounds made so far.
    """
    best = np.minimum.accumulate(curve)
    quarter, half, now = best[len(best) // 4], best[len(best) // 2], best[-1]
    shrinks = min((half - now) / (quarter - half), 1.0) if quarter > half else 1.0
    to_come = sum(shrinks**doubling for doubling in range(1, n_doublings + 1))
    return float(now - (half - now) * to_come)


class EarlyEnd(TrainingCallback):
    """Ends training that is pruned, or stopped from outside."""

    def __init__(self, threshold: PruningThreshold | None, stop: Event | None) -> None:
        super().__init__()
        self.threshold = threshold
        self.stop = stop
        self.pruned = False

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Whether to end training after this round."""
        curve = evals_log["valid"]["rmse"]
        self.pruned = self.threshold is not None and self.threshold.is_missed(curve)
        return self.pruned or (self.stop is not None and self.stop.is_set())


class TrainingJob(NamedTuple):
    """How to train one booster; the rows are shared by many jobs."""

    parameters: Mapping[str, Any]  # xgboost's
    rounds: int  # at most so many trees
    patience: int  # rounds without a better RMSE that end it
    pruning_threshold: PruningThreshold | None = None  # none: it is trained to its end
    keep: bool = False  # the outcome holds the booster too


def train_booster(matrices: Matrices, job: TrainingJob, stop: Event | None = None) -> Outcome:
    """Train until valid RMSE no longer improves, the trial is pruned, or `stop` is set.

    Args:
        matrices: train and valid rows.
        job: parameters, and when to end.
        stop: asked after each round; None where nobody stops it from outside.
    Raises:
        XGBoostError: xgboost refuses a parameter, or cannot use the device.
    """
    curves: dict[str, dict[str, list[float]]] = {}
    end = EarlyEnd(job.pruning_threshold, stop)
    start = perf_counter()
    booster = xgb.train(
        dict(job.parameters),
        matrices.train,
        job.rounds,
        evals=[(matrices.valid, "valid")],
        early_stopping_rounds=job.patience,
        evals_result=curves,
        verbose_eval=False,
        callbacks=[end],
    )
    curve = curves["valid"]["rmse"]
    best_round = int(np.argmin(curve))
    return Outcome(
        rmse=curve[best_round],
        best_round=best_round,
        curve=curve,
        seconds=perf_counter() - start,
        pruned=end.pruned,
        booster=booster[: best_round + 1] if job.keep else None,
    )
