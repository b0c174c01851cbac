"""One trial: train a booster until it stops improving, is pruned or is stopped from outside."""

from collections.abc import Mapping, Sequence
from threading import Event
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import xgboost as xgb
from xgboost.callback import TrainingCallback

from .rows import Rows
from .spaces import Pruning


class Matrices(NamedTuple):
    """Train and valid rows as xgboost holds them, shared by all trials of a process."""

    train: xgb.DMatrix
    valid: xgb.DMatrix
    max_bin: int  # of the train rows


class Outcome(NamedTuple):
    """The result of training one booster."""

    rmse: float  # minutes, on valid, at the best round
    best_round: int  # counted from 0
    curve: list[float]  # valid RMSE after each round
    seconds: float
    pruned: bool  # it missed its pruning threshold
    booster: xgb.Booster | None  # cut to its best round; None where pruned, or not asked for
    cpu_seconds: float = 0.0  # of the thread that trained it, where somebody has measured
    peak_megabytes: float = 0.0  # that its process has held until then, likewise


def build_matrices(rows: Rows) -> Matrices:
    """Convert rows for xgboost: dense features are binned once for all trials, one-hot is not."""
    # one-hot columns gain nothing from bins and cost ninefold; and to judge by a matrix of bins,
    # xgboost looks each value up again in every round, which took half of a trial's time
    train = train_matrix(rows.train, rows.train_y, rows.weight, rows.max_bin)
    return Matrices(train, xgb.DMatrix(rows.valid, rows.valid_y), rows.max_bin)


def train_matrix(
    matrix: Any, minutes: np.ndarray, weight: np.ndarray | None, max_bin: int
) -> xgb.DMatrix:
    """Convert n train rows for xgboost.

    Args:
        matrix: [n, k], float32 or CSR.
        minutes: [n].
        weight: [n]; None where all rows weigh the same.
        max_bin: of each dense column.
    """
    if not isinstance(matrix, np.ndarray):
        return xgb.DMatrix(matrix, minutes, weight=weight)
    return xgb.QuantileDMatrix(matrix, minutes, weight=weight, max_bin=max_bin)


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
    keep: bool = False  # the outcome holds the booster too, unless it is pruned


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
        {**job.parameters, "max_bin": matrices.max_bin},
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
        booster=booster[: best_round + 1] if job.keep and not end.pruned else None,
    )
