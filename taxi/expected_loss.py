"""Estimate the RMSE on trips whose drop-offs are not known yet: direct loss estimation.

How far a model is off depends on the trip. Its spread groups the validation trips, to which it was
not fitted, into the leaves of a tree and keeps the mean squared error of each leaf. The expected
squared RMSE of a month is the mean of these over the month's trips: with more trips of kinds that
the model errs on, it rises before a single drop-off is known. Like any estimate without drop-offs,
it misses trips that take longer than similar ones did on valid, because of snow or road works.

The interval covers the sampling error of the month and of the validation trips in each leaf and, as
far as valid shows it, how much one part of a month differs from another.

Source: NannyML's direct loss estimation (DLE); here with leaves instead of a second booster, so
that it ships with the model in a few kilobytes of JSON.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np

from .leaves import Leaves

N_PARTS = 4  # of valid, in time order: about a week each
INTERVAL_DEVIATIONS = 1.96  # standard deviations to either side: 95 %


class EstimatedRmse(NamedTuple):
    """An estimated RMSE, minutes, and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write it for people."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}) min"


def measure_losses(leaves: Leaves, values: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Measure the squared errors of n rows by leaf.

    Args:
        leaves: grown on these rows, so that none is empty.
        values: [n, k], the columns that the leaves split by.
        error: [n] minutes, in time order.
    Returns:
        float64 [number of leaves, 4]: the leaf's number of trips, mean (minutes²) and variance of
        their squared errors, and `measure_part_variation` of all rows.
    """
    leaf, square = leaves.find(values), error**2
    n = np.bincount(leaf)
    mean = np.bincount(leaf, square) / n
    variance = np.bincount(leaf, (square - mean[leaf]) ** 2) / np.maximum(n - 1, 1)
    part_variation = np.full(len(n), measure_part_variation(square, mean[leaf], variance[leaf]))
    return np.column_stack([n, mean.round(4), variance.round(4), part_variation.round(4)])


def measure_part_variation(square: np.ndarray, expected: np.ndarray, variance: np.ndarray) -> float:
    """Measure by what share squared errors vary between parts of a month, beyond chance.

    Args:
        square: [n] squared errors in time order.
        expected: [n] their mean, by leaf.
        variance: [n] their variance, by leaf.
    Returns:
        The standard deviation between parts of observed / expected, without its sampling error.
    """
    parts = np.array_split(np.arange(len(square)), N_PARTS)
    ratio = np.array([square[part].sum() / max(expected[part].sum(), 1e-9) for part in parts])
    chance = [variance[part].sum() / max(expected[part].sum() ** 2, 1e-9) for part in parts]
    return sqrt(max(float(ratio.var(ddof=1) - np.mean(chance)), 0.0))


def estimate_rmse(counts: np.ndarray, losses: np.ndarray) -> EstimatedRmse | None:
    """Estimate the RMSE on trips from the leaves that they fall in; None if there are no trips.

    Args:
        counts: [m] trips in each leaf.
        losses: [m, 4] by `measure_losses`, of all tables of the model.
    """
    if not (n_trips := counts.sum()):
        return None
    share = counts / n_trips
    n, mean, variance, part_variation = losses.T
    value = float((share * mean).sum())
    chance = float((share * variance).sum() / n_trips + (share**2 * variance / n).sum())
    margin = INTERVAL_DEVIATIONS * sqrt(chance + float((share * mean * part_variation).sum()) ** 2)
    low, high = (sqrt(max(value + sign * margin, 0.0)) for sign in (-1, 1))
    return EstimatedRmse(sqrt(value), low, high)
