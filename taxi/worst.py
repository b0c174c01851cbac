"""The trips with a model's largest errors, for people to look at."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .schema import Trips

N_WORST = 100


class WorstTrip(NamedTuple):
    """One such trip: the model's inputs, its prediction and the outcome."""

    pickup_at: str  # New York local time
    pickup_zone: int
    dropoff_zone: int
    distance_miles: float | None
    prediction: float  # minutes
    trip_minutes: float
    error: float  # prediction - trip_minutes


def find_worst(trips: Trips, predicted: np.ndarray) -> list[WorstTrip]:
    """List the N_WORST trips with the largest absolute errors, or all if fewer, largest first.

    Args:
        trips: n trips with their minutes.
        predicted: [n] minutes.
    """
    error = predicted - trips.trip_minutes
    size = np.abs(error)
    if len(size) > N_WORST:  # sorting millions for a hundred would cost as much as predicting some
        rows = np.flatnonzero(size >= np.partition(size, -N_WORST)[-N_WORST])
    else:
        rows = np.arange(len(size))
    rows = rows[np.argsort(-size[rows], kind="stable")][:N_WORST]
    some = trips.take(rows)
    miles = [None if np.isnan(value) else value for value in some.distance_miles.tolist()]
    columns = (
        some.pickup_at.astype("M8[s]").astype(str).tolist(),
        some.pickup_zone.tolist(),
        some.dropoff_zone.tolist(),
        miles,
        predicted[rows].round(3).tolist(),
        some.trip_minutes.round(3).tolist(),
        error[rows].round(3).tolist(),
    )
    return [WorstTrip(*values) for values in zip(*columns, strict=True)]


def join_worst(parts: Iterable[list[WorstTrip]]) -> list[WorstTrip]:
    """Merge several lists into their N_WORST; on a tie, earlier trips come first."""
    every = [trip for part in parts for trip in part]
    return sorted(every, key=lambda trip: -abs(trip.error))[:N_WORST]
