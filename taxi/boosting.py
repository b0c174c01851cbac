"""One trial: train a booster until it stops improving, is pruned or is stopped from outside."""

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
from .batches import BatchedMatrix, batches_of, join
from .freed_memory import give_back
from .rows import Rows
from .spaces import Pruning

BINNED_ROWS = 6_000_000  # train rows whose bins are in memory
BYTES_PER_VALUE = 2.3  # of bins in a file
# rows of a page of that file: a round maps every page anew some hundred times, so few large ones
# cost less, and more memory
PAGE_ROWS = 1 << 20


class Matrices(NamedTuple):
    """Train and valid rows as xgboost holds them, shared by all trials of a process."""

    train: xgb.DMatrix
    valid: xgb.DMatrix
    max_bin: int  # of the train rows


class Outcome(NamedTuple):
    """The result of training one booster."""

    rmse: float  # minutes, on valid, at the best round
    best_round: int  # counted from 0
    curve: list[float]  # valid RMSE after each round that was scored
    seconds: float
    pruned: bool  # it missed its pruning threshold
    booster: xgb.Booster | None  # cut to its best round; None where pruned, or not asked for
    cpu_seconds: float = 0.0  # of the thread that trained it, where somebody has measured
    peak_megabytes: float = 0.0  # that its process has held until then, likewise
    score_every: int = 1  # rounds from one point of the curve to the next

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
        rows: that boosters are trained and scored on.
        folder: see train_matrix.
    """
    # one-hot columns gain nothing from bins and cost ninefold
    train = train_matrix(rows.train, rows.train_y, rows.weight, rows.max_bin, folder)
    if not isinstance(rows.valid, BatchedMatrix):
        # to judge by a matrix of bins, xgboost looks each value up again in every round, which took
        # half of a trial's time
        return Matrices(train, xgb.DMatrix(rows.valid, rows.valid_y), rows.max_bin)
    batches = _Batches(rows.valid, rows.valid_y, None)
    valid = xgb.QuantileDMatrix(batches, max_bin=rows.max_bin, ref=train)
    return Matrices(train, valid, rows.max_bin)


def train_matrix(
    matrix: Any, minutes: np.ndarray, weight: np.ndarray | None, max_bin: int, folder: str = ""
) -> xgb.DMatrix:
    """Convert n train rows for xgboost; every way gives the same boosters, to the bit.

    xgboost makes bins of dense columns and needs them no more. Where the matrix is whole
    (`encoding.encode`), that is fastest. Trips too many for it are encoded anew for each of
    xgboost's four passes; a row then takes about 70 bytes, its bins, which all trials share. Where
    even these are too many, they are in a file that each round reads, and boosters are trained one
    after the other, each on all cores. `python -m bench flat_refit` has what each way costs.

    Args:
        matrix: [n, k]: float32, CSR or a BatchedMatrix.
        minutes: [n].
        weight: [n]; None where all rows weigh the same.
        max_bin: of each dense column.
        folder: of the file, for as long as the matrix is used; empty where bins are in memory.
    """
    if isinstance(matrix, np.ndarray):
        return xgb.QuantileDMatrix(matrix, minutes, weight=weight, max_bin=max_bin)
    if not isinstance(matrix, BatchedMatrix):
        return xgb.DMatrix(matrix, minutes, weight=weight)
    if folder:
        return _BinsInFile(_Batches(matrix, minutes, weight, f"{folder}/bins"), max_bin)
    return xgb.QuantileDMatrix(_Batches(matrix, minutes, weight), max_bin=max_bin)


class _Batches(xgb.DataIter):
    """Hands encoded trips to xgboost, which goes through them several times."""

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
        """Begin again, without what the last time has left."""
        give_back()
        batches, self.n_read = self.matrix.batches(), 0
        self.batches = join(batches, PAGE_ROWS) if self.cache_prefix else batches

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next batch; returns whether there was one."""
        batch = next(self.batches, None)
        if batch is None:
            return False
        rows = slice(self.n_read, self.n_read + len(batch))
        weight = None if self.weight is None else self.weight[rows]
        input_data(data=batch, label=self.minutes[rows], weight=weight)
        self.n_read = rows.stop
        return True


class _BinsInFile(xgb.ExtMemQuantileDMatrix):
    """Bins in a file, which no two boosters can read at once."""

    def __init__(self, batches: _Batches, max_bin: int) -> None:
        self.reading = Lock()
        super().__init__(batches, max_bin=max_bin)


def n_bytes_of_bins(matrix: Any, *, on_gpu: bool) -> int:
    """Estimate the file that the bins of train rows are to go into; 0 where they need none.

    Args:
        matrix: of train_matrix.
        on_gpu: whether boosters are trained there, which has its own way to so many bins.
    """
    n_rows, n_columns = matrix.shape
    in_file = isinstance(matrix, BatchedMatrix) and n_rows > BINNED_ROWS and not on_gpu
    return int(n_rows * n_columns * BYTES_PER_VALUE) if in_file else 0


def train_on(
    parameters: Mapping[str, Any], matrix: xgb.DMatrix, rounds: int, **options: Any
) -> xgb.Booster:
    """Train a booster; one whose bins are in a file has that file and all cores to itself.

    Args:
        parameters: xgboost's.
        matrix: of train_matrix.
        rounds: at most so many trees.
        options: of xgb.train.
    Raises:
        TripError: the booster is for a GPU, and there is none.
    """
    if is_cuda(parameters):
        check_gpu()
    if not isinstance(matrix, _BinsInFile):
        booster = xgb.train(dict(parameters), matrix, rounds, **options)
        if is_cuda(parameters):  # rows to predict are in the memory of the processor
            booster.set_param({"device": "cpu"})
        return booster
    with matrix.reading:
        booster = xgb.train({**parameters, "nthread": 0}, matrix, rounds, **options)
        booster.reset()  # lets go of what it holds of each row, which the next one will hold too
        give_back()
        return booster


def schedule(rates: Sequence[float]) -> list[TrainingCallback]:
    """Return what gives each round its learning rate; [] where there is none of each round.

    Args:
        rates: of each round; the first one xgboost has from its parameters.
    """
    # it is asked after a round, by that one's number, for the rate of the next
    return [LearningRateScheduler([*rates[1:], rates[-1]])] if rates else []


def is_cuda(parameters: Mapping[str, Any]) -> bool:
    """Whether a booster of these parameters is trained on a GPU."""
    return parameters.get("device") == "cuda"


def check_gpu() -> None:
    """Refuse to train on a GPU where there is none: xgboost goes on with the CPU and merely warns.

    Raises:
        TripError: it is so.
    """
    with xgb.config_context(verbosity=0):
        probe = xgb.train({"device": "cuda"}, xgb.DMatrix(np.zeros((2, 1)), [0.0, 1.0]), 1)
    if json.loads(probe.save_config())["learner"]["generic_param"]["device"] == "cpu":
        raise TripError(
            "device=cuda, but xgboost finds no GPU here, or on the worker that trains. Pass "
            "-P device=cpu."
        )


class PruningThreshold(NamedTuple):
    """The RMSE that a trial's extrapolated curve must reach, or the trial is pruned."""

    rmse: float  # minutes
    rule: Pruning

    def is_missed(self, curve: Sequence[float], score_every: int) -> bool:
        """Whether a trial with this curve so far, scored every so many rounds, is to be pruned."""
        if len(curve) * score_every < self.rule.warmup_rounds:
            return False
        return extrapolated_rmse(curve, self.rule.n_doublings) > self.rmse


def extrapolated_rmse(curve: Sequence[float], n_doublings: int) -> float:
    """Extrapolate a falling curve to where its rounds have doubled so many times.

    What the last doubling gained, each one to come gains again, shrunk every time as it shrank
    the last time.

    Args:
        curve: valid RMSE so far, minutes, every so many rounds; one at least.
        n_doublings: of the rounds made so far.
    """
    best, n = np.minimum.accumulate(curve), len(curve)
    now = best[-1]
    quarter, half = np.interp([n / 4, n / 2], np.arange(1, n + 1), best)
    shrinks = min((half - now) / (quarter - half), 1.0) if quarter > half else 1.0
    to_come = sum(shrinks**doubling for doubling in range(1, n_doublings + 1))
    return float(now - (half - now) * to_come)


class TrainingJob(NamedTuple):
    """How to train one booster; the rows are shared by many jobs."""

    parameters: Mapping[str, Any]  # xgboost's, with RMSE as what it is judged by
    rounds: int  # at most so many trees, or those up to the next one that is scored
    patience: int  # rounds without a better RMSE that end it
    pruning_threshold: PruningThreshold | None = None  # none: it is trained to its end
    keep: bool = False  # the outcome holds the booster too, unless it is pruned
    score_every: int = 1  # rounds; scoring valid after each one takes a third of all the time


class Judge(TrainingCallback):
    """Scores a booster as it grows; ends training that is over, pruned or stopped from outside.

    xgboost's own early stopping wants a score after every round.
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
        told = model.eval_set([(self.valid, "valid")], epoch)  # "[7]<tab>valid-rmse:3.95"
        self.curve.append(float(told.rpartition(":")[2]))
        threshold = self.job.pruning_threshold
        if threshold is not None:
            self.pruned = threshold.is_missed(self.curve, self.job.score_every)
        return self.pruned or self._is_over() or (self.stop is not None and self.stop.is_set())

    def _is_over(self) -> bool:
        n_since = len(self.curve) - 1 - int(np.argmin(self.curve))
        return n_since * self.job.score_every >= self.job.patience


def train_booster(matrices: Matrices, job: TrainingJob, stop: Event | None = None) -> Outcome:
    """Train until valid RMSE no longer improves, the trial is pruned, or `stop` is set.

    Args:
        matrices: train and valid rows.
        job: parameters, and when to end.
        stop: asked after each score; None where nobody stops it from outside.
    Raises:
        XGBoostError: xgboost refuses a parameter, or cannot use the device.
    """
    judge = Judge(matrices.valid, job, stop)
    start = perf_counter()
    booster = train_on(
        {**job.parameters, "max_bin": matrices.max_bin},
        matrices.train,
        job.score_every * ceil(job.rounds / job.score_every),
        callbacks=[judge],
    )
    best = int(np.argmin(judge.curve))
    n_best = job.score_every * (best + 1)
    return Outcome(
        rmse=judge.curve[best],
        best_round=n_best - 1,
        curve=judge.curve,
        seconds=perf_counter() - start,
        pruned=judge.pruned,
        booster=booster[:n_best] if job.keep and not judge.pruned else None,
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
        for place, booster in enumerate(boosters):
            predicted[place, rows] = booster.inplace_predict(batch)
        first = rows.stop
    return predicted
