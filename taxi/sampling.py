"""A bounded sample of trips: the same rows for the same seed, evenly over the time they cover."""

import numpy as np

from .schema import Trips


def take_sample(trips: Trips, max_rows: int, *, seed: int) -> Trips:
    """Return the trips themselves where they are no more than max_rows; else so many of them.

    Args:
        trips: n trips.
        max_rows: of the sample; 0 = all.
        seed: of the draw.
    """
    if not max_rows or len(trips) <= max_rows:
        return trips
    return trips.take(draw_rows(len(trips), max_rows, seed=seed))


def draw_rows(n_rows: int, n_drawn: int, *, seed: int) -> np.ndarray:
    """Draw one row of each of so many stretches of rows, in their order; int64 [n_drawn].

    Trips lie in the order of their months, so each month gives its share, and so does each part of
    it. The rows that are not drawn take no memory.

    Args:
        n_rows: to draw from, at least n_drawn.
        n_drawn: so many.
        seed: of the draw.
    """
    edges = np.arange(n_drawn + 1, dtype=np.int64) * n_rows // n_drawn
    return edges[:-1] + np.random.default_rng(seed).integers(0, np.diff(edges))
