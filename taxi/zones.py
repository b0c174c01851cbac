"""Statistics of zones and pairs of zones on the training months: counts, distances, a map.

Nothing here uses the target, so no row's duration can leak into its own features.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from .schema import N_ZONES, Trips, clean_miles, zone_or_0

N_FOLDS = 5  # statistics of a training row's pair come from the other folds
N_PAIR_CODES = N_ZONES * 1000  # of pairs
SORTED_ROWS = 1 << 21  # values that are sorted at a time


@dataclass(frozen=True)
class ZoneTables:
    """Statistics of the training months; p pairs seen, arrays indexed by zone or by pair."""

    pairs: np.ndarray  # int64 [p], codes of pair_code, ascending
    pair_trips: np.ndarray  # int64 [p]
    pair_miles: np.ndarray  # float64 [p], median clean distance; NaN if there is none
    pickup_trips: np.ndarray  # int64 [N_ZONES]
    dropoff_trips: np.ndarray  # int64 [N_ZONES]
    zone_miles: np.ndarray  # float64 [N_ZONES], median clean distance of trips touching the zone,
    #                         or of all trips if there is none; never NaN
    position: np.ndarray  # float64 [N_ZONES, 2], miles on the learned map; NaN off the map


def pair_code(trips: Trips) -> np.ndarray:
    """Encode the ordered pair of zones of each trip as pickup * 1000 + dropoff, int64 [n]."""
    return zone_or_0(trips.pickup_zone).astype(np.int64) * 1000 + zone_or_0(trips.dropoff_zone)


def fit_zone_tables(trips: Trips) -> ZoneTables:
    """Compute the statistics of zones and pairs on n training trips."""
    # imported here: a served model is restored from its tables and ships without the fit
    from .learned_map import learn_map

    miles, codes = clean_miles(trips), _pair_codes(trips)
    counts = np.bincount(codes, minlength=N_PAIR_CODES)
    pairs = np.flatnonzero(counts)
    pair_trips, pair_miles = counts[pairs], medians(codes, miles, N_PAIR_CODES)[pairs]
    ends = np.stack([zone_or_0(trips.pickup_zone), zone_or_0(trips.dropoff_zone)])
    zone_miles = medians(ends, miles, N_ZONES)
    overall = medians(np.zeros(len(trips), np.int8), miles, 1)[0]
    return ZoneTables(
        pairs=pairs,
        pair_trips=pair_trips,
        pair_miles=pair_miles,
        pickup_trips=np.bincount(ends[0], minlength=N_ZONES),
        dropoff_trips=np.bincount(ends[1], minlength=N_ZONES),
        zone_miles=np.where(np.isnan(zone_miles), np.nan_to_num(overall), zone_miles),
        position=learn_map(pairs, pair_trips, pair_miles),
    )


def _pair_codes(trips: Trips) -> np.ndarray:
    """Encode the pairs of n trips as pair_code does, in half the memory, int32 [n]."""
    return np.concatenate([pair_code(part).astype(np.int32) for part in trips.batches()])


def medians(groups: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    """Compute the median of each group's values, float64 [n_groups].

    Args:
        groups: [n] 0..n_groups - 1; or [e, n], where each value counts in e groups.
        values: [n], NaN ones do not count.
        n_groups: a group without values has the median NaN.
    """
    result = np.full(n_groups, np.nan)
    # in chunks of groups with about SORTED_ROWS values: sorting takes four times their memory
    ends = np.cumsum(np.bincount(groups.ravel(), minlength=n_groups))
    chunk_ends = np.searchsorted(ends, np.arange(SORTED_ROWS, groups.size, SORTED_ROWS)) + 1
    for first, last in pairwise(np.unique([0, *chunk_ends, n_groups])):
        inside = (groups >= first) & (groups < last) & ~np.isnan(values)
        chosen = np.broadcast_to(values, groups.shape)[inside]
        result[first:last] = _medians(groups[inside] - first, chosen, last - first)
    return result


def _medians(groups: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    values = values[np.lexsort((values, groups))] if n_groups > 1 else np.sort(values)
    counts = np.bincount(groups, minlength=n_groups)
    starts = np.cumsum(counts) - counts
    filled = np.flatnonzero(counts)
    low = starts[filled] + (counts[filled] - 1) // 2
    high = starts[filled] + counts[filled] // 2
    result = np.full(n_groups, np.nan)
    result[filled] = (values[low] + values[high]) / 2
    return result


class OutOfFold:
    """Values that differ between training rows and new trips: pair distances, and years ago.

    A training row's pair distance is the median over the rows of the other folds. Over all rows, a
    rare pair's median would be the row's own distance, and the model would learn to trust that
    column more than new trips warrant.
    """

    def __init__(self, trips: Trips) -> None:
        """Keep n training trips; statistics are computed on first use."""
        self.trips = trips

    @cached_property
    def medians(self) -> np.ndarray:
        """Median distance of each pair outside of each fold, [N_PAIR_CODES, N_FOLDS]."""
        codes, miles = _pair_codes(self.trips), clean_miles(self.trips)
        fold = np.arange(len(codes), dtype=np.int32) % N_FOLDS
        outside = (fold != k for k in range(N_FOLDS))
        return np.stack(
            [medians(codes[rows], miles[rows], N_PAIR_CODES) for rows in outside], axis=1
        )

    def of_rows(self, first: int, codes: np.ndarray) -> np.ndarray:
        """Look up the out-of-fold median distance for m consecutive rows, miles [m].

        Args:
            first: index of the first row among the training trips.
            codes: [m] of the rows' pairs.
        """
        return np.asarray(self.medians[codes, (first + np.arange(len(codes))) % N_FOLDS])

    def years_ago(self, trips: Trips) -> np.ndarray:
        """Count the years from each of m training trips to the latest month, rounded, [m]."""
        return np.asarray((self._latest_month - _month(trips) + 5) // 12)

    @cached_property
    def _latest_month(self) -> int:
        return max(int(_month(part).max(initial=0)) for part in self.trips.batches())


def _month(trips: Trips) -> np.ndarray:
    """Count the months from 1970-01 to each of n pickups, int64 [n]."""
    return trips.pickup_at.astype("datetime64[M]").astype(np.int64)


def has_old_months(trips: Trips) -> bool:
    """Whether any of n training trips is, rounded, a year or more before the latest month."""
    rows = OutOfFold(trips)
    return any(rows.years_ago(part).any() for part in trips.batches())
