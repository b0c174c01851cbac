"""What RMSE to expect of trips whose drop-offs are not known yet: direct loss estimation.

A model is wrong by other amounts on other trips, and how much so was measured on the valid trips,
which it was not fitted on. Its spread tells them apart by the leaves of a tree, and keeps the mean
squared error of each. The mean over a month's trips of what their leaves have is the squared RMSE
to expect of it: where there are more trips of the kind that it errs on, it goes up before a single
drop-off is known. It cannot know of trips that take longer than such trips took on valid, be it
for snow or for road works: no estimate without drop-offs can.

The interval holds the month's own chance, that of the valid trips behind each leaf, and, as far as
valid tells, how much one part of a month differs from another.

Source: NannyML's direct loss estimation (DLE); here by leaves instead of a second booster, so that
it travels with the model in a few kilobytes of JSON.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np

from .leaves import Leaves

N_PARTS = 4  # of valid, in the order of time: about a week each
WIDTH = 1.96  # standard deviations to either side: 95 %


class EstimatedRmse(NamedTuple):
    """What the RMSE of trips will be, minutes, and where it lies with 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Write it for people."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}) min"


def measure_losses(leaves: Leaves, values: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Measure the squared errors of n rows by leaf, float64 [number of leaves, 4].

    Of a leaf: its trips, the mean of their squared errors (minutes²), the variance of those, and
    the share by which the mean moves from one part of valid to another.

    Args:
        leaves: grown on these rows, so that none is empty.
        values: [n, k] that leaves are told apart by.
        error: [n] minutes, in the order of time.
    """
    leaf, square = leaves.find(values), error**2
    n = np.bincount(leaf)
    mean = np.bincount(leaf, square) / n
    variance = np.bincount(leaf, (square - mean[leaf]) ** 2) / np.maximum(n - 1, 1)
    moves = np.full(len(n), measure_moves(square, mean[leaf], variance[leaf]))
    return np.column_stack([n, mean.round(4), variance.round(4), moves.round(4)])


def measure_moves(square: np.ndarray, expected: np.ndarray, variance: np.ndarray) -> float:
    """Measure by what share squared errors differ between parts of a month, chance taken off.

    Args:
        square: [n] squared errors in the order of time.
        expected: [n] of them, by their leaves.
        variance: [n] of them, by their leaves.
    """
    parts = np.array_split(np.arange(len(square)), N_PARTS)
    ratio = np.array([square[part].sum() / max(expected[part].sum(), 1e-9) for part in parts])
    chance = [variance[part].sum() / max(expected[part].sum() ** 2, 1e-9) for part in parts]
    return sqrt(max(float(ratio.var(ddof=1) - np.mean(chance)), 0.0))


def estimate_rmse(counts: np.ndarray, losses: np.ndarray) -> EstimatedRmse | None:
    """Estimate the RMSE of trips from the leaves that they fall in; None where there are none.

    Args:
        counts: [m] trips in each leaf.
        losses: [m, 4] of `measure_losses`, of all tables of the model.
    """
    if not (n_trips := counts.sum()):
        return None
    share = counts / n_trips
    n, mean, variance, moves = losses.T
    value = float((share * mean).sum())
    chance = float((share * variance).sum() / n_trips + (share**2 * variance / n).sum())
    off = WIDTH * sqrt(chance + float((share * mean * moves).sum()) ** 2)
    low, high = (sqrt(max(value + way * off, 0.0)) for way in (-1, 1))
    return EstimatedRmse(sqrt(value), low, high)
