"""How sure a score is: bootstrap intervals over the trips it was measured on."""

from collections.abc import Callable
from math import exp, factorial
from typing import NamedTuple

import numpy as np

from .scores import rmse_of_mean
from .threads import thread_pool

N_RESAMPLES = 10_000
CONFIDENCE = 0.95
BLOCK, BLOCK_ROWS = 16, 8_192  # resamples and rows at once: their counts stay near a core
# a 16-bit random number is the count k of a row where it lies between the bounds k and k + 1:
# the Poisson distribution with mean 1, which ends at 8 for all that 16 bits can tell
MOST = 8  # times that a row can occur
BOUNDS = [round(65_536 * sum(exp(-1) / factorial(j) for j in range(k + 1))) for k in range(MOST)]


class Interval(NamedTuple):
    """A score and where it lies with CONFIDENCE."""

    value: float
    low: float
    high: float


def intervals(minutes: np.ndarray, predicted: np.ndarray, *, seed: int) -> dict[str, Interval]:
    """Estimate rmse and mae, in minutes, and r2 with their intervals.

    Args:
        minutes: [n] measured, n > 0.
        predicted: [n].
        seed: of the resamples.
    """
    error, centred = predicted - minutes, minutes - minutes.mean()
    columns = np.stack([error**2, np.abs(error), centred, centred**2], axis=1)
    resampled = resampled_means(columns, seed=seed)
    return {
        name: _interval(statistic(columns.mean(axis=0, keepdims=True))[0], statistic(resampled))
        for name, statistic in STATISTICS.items()
    }


# score -> how it follows from the means of error², |error|, minutes and minutes², rows of [m, 4]
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
    squares = np.stack([(champion - minutes) ** 2, (candidate - minutes) ** 2], axis=1)
    resampled = rmse_of_mean(resampled_means(squares, seed=seed))
    before, after = rmse_of_mean(squares.mean(axis=0))
    return _interval(before - after, resampled[:, 0] - resampled[:, 1])


def resampled_means(
    columns: np.ndarray, *, seed: int, n_resamples: int = N_RESAMPLES
) -> np.ndarray:
    """Compute the means of columns over resamples of their rows, float64 [n_resamples, k].

    A row occurs in a resample as often as a Poisson variable of mean 1 says, which is what drawing
    rows with replacement comes to, and needs no index per draw: 10,000 resamples are a matrix of
    counts times the columns. The result depends on the seed only, not on the cores.

    Args:
        columns: [n, k].
        seed: of the resamples.
        n_resamples: rows of the result.
    Source: Hanley & MacGibbon, Creating non-parametric bootstrap samples using Poisson
        frequencies, 2006.
    """
    whole, worth = _whole_numbers(columns)
    sizes = [min(BLOCK, n_resamples - start) for start in range(0, n_resamples, BLOCK)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    with thread_pool() as threads:
        sums = np.concatenate(
            list(threads.map(lambda size, of: _sums(whole, size, of), sizes, seeds))
        )
    coarse, fine = np.split(sums[:, 1:] * worth, 2, axis=1)
    return np.asarray((coarse + fine) / sums[:, :1])


def _whole_numbers(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write columns [n, k] in whole numbers, whose sums are exact in whatever order they are made.

    Returns:
        A column of ones, k of whole numbers and k for what those leave, [n, 2 k + 1], none so large
        that a sum of MOST times all of them would exceed what float64 counts to; and what 1 in each
        but the first is worth, [2 k].
    """
    largest = 2.0**53 // (MOST * len(columns))
    coarse_worth = np.maximum(np.abs(columns).max(axis=0), np.finfo(np.float32).tiny) / largest
    fine_worth = coarse_worth / largest
    coarse = np.rint(columns / coarse_worth)
    fine = np.rint((columns - coarse * coarse_worth) / fine_worth)
    ones = np.ones((len(columns), 1))
    return np.concatenate([ones, coarse, fine], axis=1), np.append(coarse_worth, fine_worth)


def _sums(whole: np.ndarray, n_resamples: int, seed: np.random.SeedSequence) -> np.ndarray:
    n = len(whole)
    raw = np.random.SFC64(seed).random_raw(-(-n_resamples * n // 4))  # 64 bits are four rows
    random = raw.view(np.uint16)[: n_resamples * n].reshape(n_resamples, n)
    sums = np.zeros((n_resamples, whole.shape[1]))
    for start in range(0, n, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        sums += _counts(random[:, rows]).astype(np.float64) @ whole[rows]
    return sums


def _counts(random: np.ndarray) -> np.ndarray:
    """Turn 16-bit random numbers into how often each row occurs, int8 of the same shape."""
    counts = np.zeros(random.shape, np.int8)
    for bound in BOUNDS:
        counts += (random >= bound).view(np.int8)
    return counts


def _interval(value: float, resampled: np.ndarray) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))
