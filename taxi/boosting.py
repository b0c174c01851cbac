"""Training of one booster, until it stops improving, is pruned or is stopped from outside."""

import json
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from threading import Event, Lock
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import xgboost as xgb
from xgboost.callback import LearningRateScheduler, TrainingCallback

from . import TripError
from .batches import BatchedMatrix, batches_of, join_batches
from .freed_memory import release_memory
from .rows import Rows
from .spaces import Pruning

MAX_ROWS_BINNED_IN_MEMORY = 6_000_000  # up to this many training rows, bins are kept in memory
BYTES_PER_VALUE = 2.3  # of bins in a file
# rows in a page of that file: a round maps each page some hundred times, so few large pages are
# faster, but take more memory
PAGE_ROWS = 1 << 20


class Matrices(NamedTuple):
    """Training and validation rows as xgboost holds them, shared by all trials of a process."""

    train: xgb.DMatrix
    valid: xgb.DMatrix
    max_bin: int  # of the train rows


class Outcome(NamedTuple):
    """The result of training one booster."""

    rmse: float  # minutes, on valid, at the best round
    best_round: int  # counted from 0
    curve: list[float]  # validation RMSE after each round that was scored
    seconds: float
    pruned: bool  # it missed its pruning threshold
    booster: xgb.Booster | None  # cut to its best round; None if pruned, or not requested
    cpu_seconds: float = 0.0  # of the thread that trained it; 0 if not measured
    peak_megabytes: float = 0.0  # of its process up to then; 0 if not measured
    score_every: int = 1  # rounds between two points of the curve

    @property
    def rounds(self) -> list[int]:
        """The round of each point of the curve, counted from 0."""
        return [number * self.score_every - 1 for number in range(1, len(self.curve) + 1)]

    @property
    def n_rounds(self) -> int:
        """How many rounds were trained."""
        return len(self.curve) * self.score_every


def build_matrices(rows: Rows, folder: str = "") -> Matrices:
    """Convert rows for xgboost: dense features are binned once for all trials, one-hot is not.

    Args:
        rows: the rows that boosters are trained and scored on.
        folder: see train_matrix.
    """
    # one-hot columns gain nothing from bins and take nine times as long
    train = train_matrix(rows.train, rows.train_y, rows.weight, rows.max_bin, folder)
    if not isinstance(rows.valid, BatchedMatrix):
        # no bins: to score them, xgboost looks up each value again in every round, which took half
        # of a trial's time
        return Matrices(train, xgb.DMatrix(rows.valid, rows.valid_y), rows.max_bin)
    batches = _Batches(rows.valid, rows.valid_y, None)
    valid = xgb.QuantileDMatrix(batches, max_bin=rows.max_bin, ref=train)
    return Matrices(train, valid, rows.max_bin)


def train_matrix(
    matrix: Any, minutes: np.ndarray, weight: np.ndarray | None, max_bin: int, folder: str = ""
) -> xgb.DMatrix:
    """Convert n training rows for xgboost; every way gives the same boosters, bit for bit.

    xgboost bins dense columns, and then no longer needs the values. A whole matrix
    (`encoding.encode`) is fastest. A BatchedMatrix is encoded again in each of xgboost's four
    passes; only its bins stay in memory, about 70 bytes a row, shared by all trials. If even these
    are too many, they go to a file that is read in each round, and boosters are trained one after
    the other, each on all cores. `python -m bench flat_refit` measures what each way costs.

    Args:
        matrix: [n, k]: float32, CSR or a BatchedMatrix.
        minutes: [n].
        weight: [n]; None if all rows weigh the same.
        max_bin: of each dense column.
        folder: for the file of bins, kept as long as the matrix is used; empty for bins in memory.
    """
    if isinstance(matrix, np.ndarray):
        return xgb.QuantileDMatrix(matrix, minutes, weight=weight, max_bin=max_bin)
    if not isinstance(matrix, BatchedMatrix):
        return xgb.DMatrix(matrix, minutes, weight=weight)
    if folder:
        return _BinsInFile(_Batches(matrix, minutes, weight, f"{folder}/bins"), max_bin)
    return xgb.QuantileDMatrix(_Batches(matrix, minutes, weight), max_bin=max_bin)


class _Batches(xgb.DataIter):
    """Feeds encoded trips to xgboost, which makes several passes over them."""

    def __init__(
        self,
        matrix: BatchedMatrix,
        minutes: np.ndarray,
        weight: np.ndarray | None,
        cache_prefix: str | None = None,
    ) -> None:
        self.matrix, self.minutes, self.weight = matrix, minutes, weight
        super().__init__(cache_prefix)

    def reset(self) -> None:
        """Start another pass, after freeing the memory of the last one."""
        release_memory()
        batches, self.n_read = self.matrix.batches(), 0
        self.batches = join_batches(batches, PAGE_ROWS) if self.cache_prefix else batches

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next batch; return whether there was one."""
        batch = next(self.batches, None)
        if batch is None:
            return False
        rows = slice(self.n_read, self.n_read + len(batch))
        weight = None if self.weight is None else self.weight[rows]
        input_data(data=batch, label=self.minutes[rows], weight=weight)
        self.n_read = rows.stop
        return True


class _BinsInFile(xgb.ExtMemQuantileDMatrix):
    """Bins in a file, which only one booster can read at a time."""

    def __init__(self, batches: _Batches, max_bin: int) -> None:
        self.lock = Lock()
        super().__init__(batches, max_bin=max_bin)


def n_bytes_of_bins(matrix: Any, *, on_gpu: bool) -> int:
    """Estimate the size in bytes of the file for the bins of training rows; 0 if none is needed.

    Args:
        matrix: as for train_matrix.
        on_gpu: whether boosters are trained on a GPU, which never uses the file.
    """
    n_rows, n_columns = matrix.shape
    in_file = (
        isinstance(matrix, BatchedMatrix) and n_rows > MAX_ROWS_BINNED_IN_MEMORY and not on_gpu
    )
    return int(n_rows * n_columns * BYTES_PER_VALUE) if in_file else 0


def train_xgboost(
    parameters: Mapping[str, Any], matrix: xgb.DMatrix, rounds: int, **options: Any
) -> xgb.Booster:
    """Train a booster; with bins in a file it has that file and all cores to itself.

    Args:
        parameters: xgboost's.
        matrix: by train_matrix.
        rounds: maximum number of trees.
        options: passed to xgb.train.
    Raises:
        TripError: the parameters ask for a GPU, and there is none.
    """
    if is_cuda(parameters):
        check_gpu()
    if not isinstance(matrix, _BinsInFile):
        booster = xgb.train(dict(parameters), matrix, rounds, **options)
        if is_cuda(parameters):  # the rows to predict are in main memory
            booster.set_param({"device": "cpu"})
        return booster
    with matrix.lock:
        booster = xgb.train({**parameters, "nthread": 0}, matrix, rounds, **options)
        booster.reset()  # frees its data per row, before the next booster allocates its own
        release_memory()
        return booster


def learning_rate_callbacks(rates: Sequence[float]) -> list[TrainingCallback]:
    """Return the callback that sets each round's learning rate; [] without `rates`.

    Args:
        rates: of each round; the first must be that of xgboost's parameters.
    """
    # xgboost asks after round n, with index n, for the rate of round n + 1
    return [LearningRateScheduler([*rates[1:], rates[-1]])] if rates else []


def is_cuda(parameters: Mapping[str, Any]) -> bool:
    """Whether a booster of these parameters is trained on a GPU."""
    return parameters.get("device") == "cuda"


def check_gpu() -> None:
    """Refuse to train on a GPU if there is none: xgboost would only warn and use the CPU.

    Raises:
        TripError: xgboost finds no GPU.
    """
    with xgb.config_context(verbosity=0):
        probe = xgb.train({"device": "cuda"}, xgb.DMatrix(np.zeros((2, 1)), [0.0, 1.0]), 1)
    if json.loads(probe.save_config())["learner"]["generic_param"]["device"] == "cpu":
        raise TripError(
            "device=cuda, but xgboost finds no GPU here, or on the worker that trains. Pass "
            "-P device=cpu."
        )


class PruningThreshold(NamedTuple):
    """The RMSE that a trial's extrapolated curve must reach for the trial not to be pruned."""

    rmse: float  # minutes
    rule: Pruning

    def is_missed(self, curve: Sequence[float], score_every: int) -> bool:
        """Whether to prune a trial with this curve so far, scored every `score_every` rounds."""
        if len(curve) * score_every < self.rule.warmup_rounds:
            return False
        return extrapolated_rmse(curve, self.rule.n_doublings) > self.rmse


def extrapolated_rmse(curve: Sequence[float], n_doublings: int) -> float:
    """Extrapolate a learning curve to `n_doublings` doublings of its rounds.

    Each further doubling is assumed to gain what the one before gained, times the ratio of the last
    two gains (at most 1).

    Args:
        curve: validation RMSE so far, minutes, at even steps; one value at least.
        n_doublings: number of doublings of the rounds made so far.
    Returns:
        The extrapolated RMSE, minutes.
    """
    best, n = np.minimum.accumulate(curve), len(curve)
    now = best[-1]
    quarter, half = np.interp([n / 4, n / 2], np.arange(1, n + 1), best)
    shrinkage = min((half - now) / (quarter - half), 1.0) if quarter > half else 1.0
    future_gains = sum(shrinkage**doubling for doubling in range(1, n_doublings + 1))
    return float(now - (half - now) * future_gains)


class TrainingJob(NamedTuple):
    """How to train one booster; the rows are shared by many jobs."""

    parameters: Mapping[str, Any]  # xgboost's, with RMSE as eval_metric
    rounds: int  # maximum number of trees, rounded up to a multiple of score_every
    patience: int  # training ends after so many rounds without a better RMSE
    pruning_threshold: PruningThreshold | None = None  # None: never pruned
    keep_booster: bool = False  # return the booster in the outcome too, unless it is pruned
    score_every: int = 1  # rounds; scoring after each one takes a third of the time


class StoppingCallback(TrainingCallback):
    """Scores a booster during training, and ends it by patience, pruning or from outside.

    xgboost's own early stopping requires a score after every round.
    """

    def __init__(self, valid: xgb.DMatrix, job: TrainingJob, stop: Event | None) -> None:
        super().__init__()
        self.valid, self.job, self.stop = valid, job, stop
        self.curve: list[float] = []
        self.pruned = False

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: Any) -> bool:
        """Whether to end training after this round, counted from 0."""
        if (epoch + 1) % self.job.score_every:
            return False
        score_text = model.eval_set([(self.valid, "valid")], epoch)  # "[7]<tab>valid-rmse:3.95"
        self.curve.append(float(score_text.rpartition(":")[2]))
        threshold = self.job.pruning_threshold
        if threshold is not None:
            self.pruned = threshold.is_missed(self.curve, self.job.score_every)
        return (
            self.pruned
            or self._is_out_of_patience()
            or (self.stop is not None and self.stop.is_set())
        )

    def _is_out_of_patience(self) -> bool:
        n_since = len(self.curve) - 1 - int(np.argmin(self.curve))
        return n_since * self.job.score_every >= self.job.patience


def train_booster(matrices: Matrices, job: TrainingJob, stop: Event | None = None) -> Outcome:
    """Train until validation RMSE no longer improves, the trial is pruned, or `stop` is set.

    Args:
        matrices: training and validation rows.
        job: parameters, and when to end.
        stop: checked after each score; None if training is never stopped from outside.
    Raises:
        TripError: the parameters ask for a GPU, and there is none.
        XGBoostError: xgboost refuses a parameter, or cannot use the device.
    """
    callback = StoppingCallback(matrices.valid, job, stop)
    start = perf_counter()
    booster = train_xgboost(
        {**job.parameters, "max_bin": matrices.max_bin},
        matrices.train,
        job.score_every * ceil(job.rounds / job.score_every),
        callbacks=[callback],
    )
    best = int(np.argmin(callback.curve))
    n_best = job.score_every * (best + 1)
    return Outcome(
        rmse=callback.curve[best],
        best_round=n_best - 1,
        curve=callback.curve,
        seconds=perf_counter() - start,
        pruned=callback.pruned,
        booster=booster[:n_best] if job.keep_booster and not callback.pruned else None,
        score_every=job.score_every,
    )


def predict_each(boosters: Sequence[xgb.Booster], matrix: Any) -> np.ndarray:
    """Predict n rows with each of t boosters, float32 [t, n].

    Args:
        boosters: t of them.
        matrix: [n, k], float32, CSR or a BatchedMatrix.
    """
    predicted = np.empty((len(boosters), matrix.shape[0]), np.float32)
    first = 0
    for batch in batches_of(matrix):
        rows = slice(first, first + batch.shape[0])
        for index, booster in enumerate(boosters):
            predicted[index, rows] = booster.inplace_predict(batch)
        first = rows.stop
    return predicted
