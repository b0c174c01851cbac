"""Bootstrap confidence intervals of scores, over the trips they were measured on."""

from collections.abc import Callable, Iterator
from functools import partial
from math import exp, factorial
from typing import NamedTuple

import numpy as np

from .scores import rmse_of_mean
from .threads import thread_pool

N_RESAMPLES = 10_000
CONFIDENCE = 0.95
RESAMPLES_PER_STREAM = 16  # resamples drawn from one random stream, one after the other
STREAMS_PER_TASK = 16  # streams that a thread processes side by side
BLOCK_ROWS = 65_536  # rows in memory at a time
CACHED_ROWS = 8_192  # of these, rows whose counts fit a core's cache
# a row's count is the number of bounds that its 16-bit random number reaches: Poisson with mean 1,
# cut at 8, as far as 16 bits can resolve it
MAX_COUNT = 8  # times that a row can occur
COUNT_BOUNDS = [
    round(65_536 * sum(exp(-1) / factorial(j) for j in range(k + 1))) for k in range(MAX_COUNT)
]


class Interval(NamedTuple):
    """A score and its confidence interval at level CONFIDENCE."""

    value: float
    low: float
    high: float


# slice of b rows -> k columns of them, [b, k]; computed again in each pass, because the columns of
# all rows would take many times the memory of the predictions
ComputeColumns = Callable[[slice], np.ndarray]


def score_intervals(
    minutes: np.ndarray, predicted: np.ndarray, *, seed: int
) -> dict[str, Interval]:
    """Estimate rmse and mae, in minutes, and r2, with their confidence intervals.

    Args:
        minutes: [n] measured, n > 0.
        predicted: [n].
        seed: of the resamples.
    """
    centre = minutes.mean()

    def columns(rows: slice) -> np.ndarray:
        error, centred = predicted[rows] - minutes[rows], minutes[rows] - centre
        return np.stack([error**2, np.abs(error), centred, centred**2], axis=1)

    means = _means(columns, len(minutes))[None]
    resampled = resampled_means(columns, len(minutes), seed=seed)
    return {
        name: percentile_interval(statistic(means)[0], statistic(resampled))
        for name, statistic in STATISTICS.items()
    }


# score -> its formula from the means, [m, 4], of: error², |error|, centred minutes, their square
STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rmse": lambda means: rmse_of_mean(means[:, 0]),
    "mae": lambda means: means[:, 1],
    "r2": lambda means: _r2_of_means(*means[:, [0, 2, 3]].T),
}


def _r2_of_means(
    squared_errors: np.ndarray, centred: np.ndarray, centred_squares: np.ndarray
) -> np.ndarray:
    """Compute R2 from the means of m resamples, [m]; minus infinity if all trips took as long."""
    variance = centred_squares - centred**2
    varies = variance > 0
    return np.where(varies, 1 - squared_errors / np.where(varies, variance, 1), -np.inf)


def rmse_improvement(
    minutes: np.ndarray, candidate: np.ndarray, champion: np.ndarray, *, seed: int
) -> Interval:
    """Estimate the champion's RMSE minus the candidate's, minutes; above 0 the candidate is better.

    The bootstrap is paired: both are scored on the same rows in every resample, so what makes a
    trip hard for both cancels out.

    Args:
        minutes: [n] measured, n > 0.
        candidate: [n] its predictions of the same trips.
        champion: [n] its predictions of the same trips.
        seed: of the resamples.
    """

    def squares(rows: slice) -> np.ndarray:
        errors = [predicted[rows] - minutes[rows] for predicted in (champion, candidate)]
        return np.stack(errors, axis=1) ** 2

    resampled = rmse_of_mean(resampled_means(squares, len(minutes), seed=seed))
    before, after = rmse_of_mean(_means(squares, len(minutes)))
    return percentile_interval(before - after, resampled[:, 0] - resampled[:, 1])


def resampled_means(
    columns: ComputeColumns, n_rows: int, *, seed: int, n_resamples: int = N_RESAMPLES
) -> np.ndarray:
    """Compute the means of columns over resamples of their rows, float64 [n_resamples, k].

    A row's count in a resample is Poisson with mean 1, which approximates drawing rows with
    replacement and needs no index per draw: 10,000 resamples are a matrix of counts times the
    columns. The result does not depend on the number of cores, nor the memory on that of rows.

    Args:
        columns: computes the columns of a slice of rows.
        n_rows: number of rows.
        seed: of the resamples.
        n_resamples: rows of the result; fewer if some resamples of a few rows come out empty.
    Source: Hanley & MacGibbon, Creating non-parametric bootstrap samples using Poisson
        frequencies, 2006.
    """
    units = _choose_units(columns, n_rows)
    seeds = np.random.SeedSequence(seed).spawn(-(-n_resamples // RESAMPLES_PER_STREAM))
    streams = [_Stream(stream_seed) for stream_seed in seeds]
    sums = np.zeros((RESAMPLES_PER_STREAM, len(streams), 1 + units.size))
    tasks = [
        slice(start, start + STREAMS_PER_TASK) for start in range(0, len(streams), STREAMS_PER_TASK)
    ]
    with thread_pool() as threads:
        for resample_sums in sums:
            for rows in _blocks(n_rows, BLOCK_ROWS):
                add = partial(_add_resampled, _to_integers(columns(rows), *units))
                parts = ((streams[task], resample_sums[task]) for task in tasks)
                list(threads.map(add, *zip(*parts, strict=True)))
    sums = sums.swapaxes(0, 1).reshape(-1, sums.shape[2])[:n_resamples]
    sums = sums[sums[:, 0] > 0]
    coarse, fine = np.split(sums[:, 1:] * units.ravel(), 2, axis=1)
    return np.asarray((coarse + fine) / sums[:, :1])


def _blocks(n_rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def _means(columns: ComputeColumns, n_rows: int) -> np.ndarray:
    """Compute the means of columns, [k], adding up the rows in their order."""
    parts = (columns(rows) for rows in _blocks(n_rows, BLOCK_ROWS))
    total = next(parts).sum(axis=0)
    for part in parts:
        total = np.concatenate([total[None], part]).sum(axis=0)
    return np.asarray(total / n_rows)


def _choose_units(columns: ComputeColumns, n_rows: int) -> np.ndarray:
    """Choose the units of the coarse and the fine whole numbers of each column, [2, k].

    The numbers must be so small that MAX_COUNT times the sum of all of them is exact in float64.
    """
    maxima = [np.abs(columns(rows)).max(axis=0) for rows in _blocks(n_rows, BLOCK_ROWS)]
    largest = 2.0**53 // (MAX_COUNT * n_rows)
    coarse = np.maximum(np.max(maxima, axis=0), np.finfo(np.float32).tiny) / largest
    return np.stack([coarse, coarse / largest])


def _to_integers(columns: np.ndarray, coarse_unit: np.ndarray, fine_unit: np.ndarray) -> np.ndarray:
    """Convert columns [b, k] to whole numbers, whose sums are exact in any order.

    Returns:
        A column of ones, k columns of coarse units and k of the remainder in fine units,
        [b, 2 k + 1].
    """
    coarse = np.rint(columns / coarse_unit)
    fine = np.rint((columns - coarse * coarse_unit) / fine_unit)
    return np.concatenate([np.ones((len(columns), 1)), coarse, fine], axis=1)


class _Stream:
    """The 16-bit random numbers of a seed, in order."""

    def __init__(self, seed: np.random.SeedSequence) -> None:
        self.source = np.random.SFC64(seed)
        self.unused = np.empty(0, np.uint16)  # of the last 64 bits drawn, which make four

    def fill(self, numbers: np.ndarray) -> None:
        """Fill an array, uint16 [n], with the next numbers."""
        n_left = min(len(self.unused), len(numbers))
        numbers[:n_left], self.unused = self.unused[:n_left], self.unused[n_left:]
        if n_more := len(numbers) - n_left:
            drawn = self.source.random_raw(-(-n_more // 4)).view(np.uint16)
            numbers[n_left:], self.unused = drawn[:n_more], drawn[n_more:].copy()


def _add_resampled(integers: np.ndarray, streams: list[_Stream], sums: np.ndarray) -> None:
    """Add rows [b, c], times their counts in one resample of each stream, to the sums [s, c]."""
    random = np.empty((len(streams), len(integers)), np.uint16)
    for stream, numbers in zip(streams, random, strict=True):
        stream.fill(numbers)
    for rows in _blocks(len(integers), CACHED_ROWS):
        sums += _counts(random[:, rows]).astype(np.float64) @ integers[rows]


def _counts(random: np.ndarray) -> np.ndarray:
    """Convert 16-bit random numbers to counts of rows, int8 of the same shape."""
    counts = np.zeros(random.shape, np.int8)
    for bound in COUNT_BOUNDS:
        counts += (random >= bound).view(np.int8)
    return counts


def percentile_interval(value: np.ndarray | float, resampled: np.ndarray) -> Interval:
    """Build the percentile interval of a value from its resamples, those without one left out."""
    tail = (1 - CONFIDENCE) / 2
    known = resampled[np.isfinite(resampled)]
    low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (value, value)
    return Interval(float(value), float(low), float(high))
