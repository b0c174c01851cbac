"""How sure a score is: bootstrap intervals over the trips it was measured on."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import exp, factorial
from typing import NamedTuple

import numpy as np

from .scores import rmse_of_mean

N_RESAMPLES = 10_000
CONFIDENCE = 0.95
BLOCK = 16  # resamples at once: their counts stay near a core
# a 16-bit random number is the count k of a row where it lies between the bounds k and k + 1:
# the Poisson distribution with mean 1, which ends at 8 for all that 16 bits can tell
BOUNDS = [round(65_536 * sum(exp(-1) / factorial(j) for j in range(k + 1))) for k in range(8)]


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
    # the largest value decides what float32 can hold of the others
    scale = np.maximum(np.abs(columns).max(axis=0), np.finfo(np.float32).tiny)
    weighed = np.concatenate([columns / scale, np.ones((len(columns), 1))], axis=1)
    weighed = weighed.astype(np.float32)
    sizes = [min(BLOCK, n_resamples - start) for start in range(0, n_resamples, BLOCK)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    with ThreadPoolExecutor() as executor:
        sums = np.concatenate(
            list(executor.map(lambda size, of: _sums(weighed, size, of), sizes, seeds))
        )
    return np.asarray(sums[:, :-1] / sums[:, -1:] * scale)


def _sums(columns: np.ndarray, n_resamples: int, seed: np.random.SeedSequence) -> np.ndarray:
    n = len(columns)
    raw = np.random.SFC64(seed).random_raw(-(-n_resamples * n // 4))  # 64 bits are four rows
    random = raw.view(np.uint16)[: n_resamples * n].reshape(n_resamples, n)
    counts = np.zeros(random.shape, np.int8)
    for bound in BOUNDS:
        counts += (random >= bound).view(np.int8)
    return (counts.astype(np.float32) @ columns).astype(np.float64)


def _interval(value: float, resampled: np.ndarray) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))
