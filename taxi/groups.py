"""Group trips by their hour, their distance, or how busy their zone is.

Each trip holds its group's number and each group one name: comparing names of millions of trips for
every group would take longer than predicting them.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .schema import Trips, clean_miles, zone_or_0
from .words import format_count

DISTANCE_BANDS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 60.0)  # miles
NO_DISTANCE = "no distance"  # band of a trip without a clean distance
N_ZONE_GROUPS = 5


class Grouping(NamedTuple):
    """A group for each of n trips."""

    names: Sequence[str]  # of the groups, in their order
    number: np.ndarray  # uint8 [n], places in `names`

    def parts(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the groups that have trips, each as its name and its trips, bool [n]."""
        counts = np.bincount(self.number, minlength=len(self.names))
        return ((self.names[at], self.number == at) for at in np.flatnonzero(counts).tolist())


def pickup_hours(trips: Trips) -> np.ndarray:
    """Return the hour of each pickup, 0..23, int64 [n]."""
    return trips.pickup_at.astype("datetime64[h]").astype(int) % 24


def by_hour(trips: Trips) -> Grouping:
    """Group n trips by the hour of their pickup, 00 to 23."""
    return Grouping([f"{hour:02d}" for hour in range(24)], pickup_hours(trips).astype(np.uint8))


def by_distance(trips: Trips) -> Grouping:
    """Group n trips by the band of DISTANCE_BANDS that each lies in; NO_DISTANCE is the last."""
    names = [*(f"{a:04.1f}..{b:04.1f} miles" for a, b in pairwise(DISTANCE_BANDS)), NO_DISTANCE]
    # NaN sorts after all bounds
    index = np.searchsorted(DISTANCE_BANDS[1:], clean_miles(trips), side="left")
    return Grouping(names, index.astype(np.uint8))


def by_busyness(trips: Trips) -> Grouping:
    """Group n trips by how busy their pickup zone is, into groups of about equally many pickups."""
    zone = zone_or_0(trips.pickup_zone)
    counts = np.bincount(zone)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    rank = np.empty(len(counts), np.uint8)
    rank[order] = np.minimum(before * N_ZONE_GROUPS // len(zone), N_ZONE_GROUPS - 1)
    n_zones = np.bincount(rank[counts > 0], minlength=N_ZONE_GROUPS).tolist()
    names = [f"busyness {index + 1} ({format_count(n, 'zone')})" for index, n in enumerate(n_zones)]
    return Grouping(names, rank[zone])
