"""A bounded sample of trips: reproducible by its seed, and spread evenly over their time."""

import numpy as np

from .schema import Trips


def sample_trips_evenly(trips: Trips, max_rows: int, *, seed: int) -> Trips:
    """Return a sample of max_rows trips, or the trips themselves if they are no more.

    Args:
        trips: n trips.
        max_rows: of the sample; 0 = all.
        seed: of the draw.
    """
    if not max_rows or len(trips) <= max_rows:
        return trips
    return trips.take(sample_rows_evenly(len(trips), max_rows, seed=seed))


def sample_rows_evenly(n_rows: int, n_drawn: int, *, seed: int) -> np.ndarray:
    """Draw one row from each of n_drawn equal stretches of rows, ascending, int64 [n_drawn].

    Trips are ordered by month, so each month, and each part of one, is represented by its share.
    Unlike a permutation, this takes no memory for rows that are not drawn.

    Args:
        n_rows: rows to draw from, at least n_drawn.
        n_drawn: rows to draw.
        seed: of the draw.
    """
    edges = np.arange(n_drawn + 1, dtype=np.int64) * n_rows // n_drawn
    return edges[:-1] + np.random.default_rng(seed).integers(0, np.diff(edges))
