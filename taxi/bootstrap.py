"""How sure a score is: bootstrap intervals over the trips it was measured on."""

from collections.abc import Callable, Iterator
from functools import partial
from math import exp, factorial
from typing import NamedTuple

import numpy as np

from .scores import rmse_of_mean
from .threads import thread_pool

N_RESAMPLES = 10_000
CONFIDENCE = 0.95
BLOCK = 16  # resamples that draw from one stream, one after the other
AT_ONCE = 16  # streams that a thread goes through side by side
BLOCK_ROWS = 65_536  # rows that are looked at at once, however many there are
NEAR_ROWS = 8_192  # of these, whose counts stay near a core
# a 16-bit random number is the count k of a row where it lies between the bounds k and k + 1:
# the Poisson distribution with mean 1, which ends at 8 for all that 16 bits can tell
MOST = 8  # times that a row can occur
BOUNDS = [round(65_536 * sum(exp(-1) / factorial(j) for j in range(k + 1))) for k in range(MOST)]


class Interval(NamedTuple):
    """A score and where it lies with CONFIDENCE."""

    value: float
    low: float
    high: float


# rows -> what is known of these b of n rows, [b, k]; asked for in each pass anew, for those of all
# rows would be many times the predictions
Columns = Callable[[slice], np.ndarray]


def intervals(minutes: np.ndarray, predicted: np.ndarray, *, seed: int) -> dict[str, Interval]:
    """Estimate rmse and mae, in minutes, and r2 with their intervals.

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
        name: interval_of(statistic(means)[0], statistic(resampled))
        for name, statistic in STATISTICS.items()
    }


# score -> how it follows from the means of error², |error|, and of the minutes less their mean and
# that squared, rows of [m, 4]
STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rmse": lambda means: rmse_of_mean(means[:, 0]),
    "mae": lambda means: means[:, 1],
    "r2": lambda means: 1 - means[:, 0] / (means[:, 3] - means[:, 2] ** 2),
}


def improvement(
    minutes: np.ndarray, candidate: np.ndarray, champion: np.ndarray, *, seed: int
) -> Interval:
    """Estimate the champion's RMSE less the candidate's, minutes: above 0 the candidate is better.

    The interval is of the difference: both are judged by the same rows in every resample, so what
    makes a trip hard for both cancels out.

    Args:
        minutes: [n] measured, n > 0.
        candidate: [n] predicted for the same trips.
        champion: [n] likewise.
        seed: of the resamples.
    """

    def squares(rows: slice) -> np.ndarray:
        errors = [predicted[rows] - minutes[rows] for predicted in (champion, candidate)]
        return np.stack(errors, axis=1) ** 2

    resampled = rmse_of_mean(resampled_means(squares, len(minutes), seed=seed))
    before, after = rmse_of_mean(_means(squares, len(minutes)))
    return interval_of(before - after, resampled[:, 0] - resampled[:, 1])


def resampled_means(
    columns: Columns, n_rows: int, *, seed: int, n_resamples: int = N_RESAMPLES
) -> np.ndarray:
    """Compute the means of columns over resamples of their rows, float64 [n_resamples, k].

    A row occurs in a resample as often as a Poisson variable of mean 1 says, which is what drawing
    rows with replacement comes to, and needs no index per draw: 10,000 resamples are a matrix of
    counts times the columns. The result depends on the seed only, not on the cores, and the memory
    not on the rows.

    Args:
        columns: of the rows.
        n_rows: that there are.
        seed: of the resamples.
        n_resamples: rows of the result; a few less where a resample of few rows has none of them.
    Source: Hanley & MacGibbon, Creating non-parametric bootstrap samples using Poisson
        frequencies, 2006.
    """
    worth = _worth(columns, n_rows)
    seeds = np.random.SeedSequence(seed).spawn(-(-n_resamples // BLOCK))
    streams = [_Stream(of) for of in seeds]
    sums = np.zeros((BLOCK, len(streams), 1 + worth.size))
    tasks = [slice(start, start + AT_ONCE) for start in range(0, len(streams), AT_ONCE)]
    with thread_pool() as threads:
        for of_resample in sums:
            for rows in _blocks(n_rows, BLOCK_ROWS):
                add = partial(_add, _whole_numbers(columns(rows), *worth))
                list(threads.map(add, (streams[t] for t in tasks), (of_resample[t] for t in tasks)))
    sums = sums.swapaxes(0, 1).reshape(-1, sums.shape[2])[:n_resamples]
    sums = sums[sums[:, 0] > 0]
    coarse, fine = np.split(sums[:, 1:] * worth.ravel(), 2, axis=1)
    return np.asarray((coarse + fine) / sums[:, :1])


def _blocks(n_rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def _means(columns: Columns, n_rows: int) -> np.ndarray:
    """Compute the means of columns, [k], added up row by row."""
    parts = (columns(rows) for rows in _blocks(n_rows, BLOCK_ROWS))
    total = next(parts).sum(axis=0)
    for part in parts:
        total = np.concatenate([total[None], part]).sum(axis=0)
    return np.asarray(total / n_rows)


def _worth(columns: Columns, n_rows: int) -> np.ndarray:
    """Find what 1 is worth in the coarse and in the fine whole numbers of columns, [2, k].

    None of these is so large that a sum of MOST times all of them would exceed what float64 counts
    to.
    """
    most = [np.abs(columns(rows)).max(axis=0) for rows in _blocks(n_rows, BLOCK_ROWS)]
    largest = 2.0**53 // (MOST * n_rows)
    coarse = np.maximum(np.max(most, axis=0), np.finfo(np.float32).tiny) / largest
    return np.stack([coarse, coarse / largest])


def _whole_numbers(
    columns: np.ndarray, coarse_worth: np.ndarray, fine_worth: np.ndarray
) -> np.ndarray:
    """Write columns [b, k] in whole numbers, whose sums are exact in whatever order they are made.

    Returns:
        A column of ones, k of whole numbers and k for what those leave, [b, 2 k + 1].
    """
    coarse = np.rint(columns / coarse_worth)
    fine = np.rint((columns - coarse * coarse_worth) / fine_worth)
    return np.concatenate([np.ones((len(columns), 1)), coarse, fine], axis=1)


class _Stream:
    """The 16-bit random numbers of a seed, in their order."""

    def __init__(self, seed: np.random.SeedSequence) -> None:
        self.source = np.random.SFC64(seed)
        self.left = np.empty(0, np.uint16)  # of the 64 bits drawn last, which are four

    def fill(self, numbers: np.ndarray) -> None:
        """Write the next ones into an array, uint16 [n]."""
        n_left = min(len(self.left), len(numbers))
        numbers[:n_left], self.left = self.left[:n_left], self.left[n_left:]
        if n_more := len(numbers) - n_left:
            drawn = self.source.random_raw(-(-n_more // 4)).view(np.uint16)
            numbers[n_left:], self.left = drawn[:n_more], drawn[n_more:].copy()


def _add(whole: np.ndarray, streams: list[_Stream], sums: np.ndarray) -> None:
    """Add to the sums of a resample of each stream, [s, c], those of these rows [b, c]."""
    random = np.empty((len(streams), len(whole)), np.uint16)
    for stream, numbers in zip(streams, random, strict=True):
        stream.fill(numbers)
    for rows in _blocks(len(whole), NEAR_ROWS):
        sums += _counts(random[:, rows]).astype(np.float64) @ whole[rows]


def _counts(random: np.ndarray) -> np.ndarray:
    """Turn 16-bit random numbers into how often each row occurs, int8 of the same shape."""
    counts = np.zeros(random.shape, np.int8)
    for bound in BOUNDS:
        counts += (random >= bound).view(np.int8)
    return counts


def interval_of(value: np.ndarray | float, resampled: np.ndarray) -> Interval:
    """Give a value the interval that CONFIDENCE of its resamples lie in."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))
