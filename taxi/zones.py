"""Statistics of zones and pairs of zones on the train months: counts, distances, a map.

Nothing here looks at the target, so no row's duration can reach its own features.
"""

from dataclasses import dataclass

import numpy as np

from .schema import N_ZONES, Trips, clean_miles, known_zone

N_FOLDS = 5  # a train row's pair is described by the rows of the other folds


@dataclass(frozen=True)
class ZoneTables:
    """Statistics fitted on train months; p pairs seen, arrays indexed by zone or by pair."""

    pairs: np.ndarray  # int64 [p], codes of pair_code, ascending
    pair_trips: np.ndarray  # int64 [p]
    pair_miles: np.ndarray  # float64 [p], median clean distance; NaN where no clean one
    pickup_trips: np.ndarray  # int64 [N_ZONES]
    dropoff_trips: np.ndarray  # int64 [N_ZONES]
    zone_miles: np.ndarray  # float64 [N_ZONES], median clean distance of trips touching the zone,
    #                         of all trips where there is none: never NaN
    position: np.ndarray  # float64 [N_ZONES, 2], miles on the learned map; NaN off the map


def pair_code(trips: Trips) -> np.ndarray:
    """Encode the ordered pair of zones of each trip as pickup * 1000 + dropoff, int64 [n]."""
    return known_zone(trips.pickup_zone).astype(np.int64) * 1000 + known_zone(trips.dropoff_zone)


def fit_zone_tables(trips: Trips) -> ZoneTables:
    """Count and measure the zones and pairs of the train months, n rows."""
    # a served model is restored from its tables, and takes no fit with it
    from .learned_map import learn_map

    miles = clean_miles(trips)
    pairs, pair_of_row, pair_trips = np.unique(
        pair_code(trips), return_inverse=True, return_counts=True
    )
    pair_miles = medians(pair_of_row, miles, len(pairs))
    pickup, dropoff = known_zone(trips.pickup_zone), known_zone(trips.dropoff_zone)
    ends, both = np.concatenate([pickup, dropoff]), np.concatenate([miles, miles])
    zone_miles = medians(ends, both, N_ZONES)
    overall = medians(np.zeros_like(pickup), miles, 1)[0]
    return ZoneTables(
        pairs=pairs,
        pair_trips=pair_trips,
        pair_miles=pair_miles,
        pickup_trips=np.bincount(pickup, minlength=N_ZONES),
        dropoff_trips=np.bincount(dropoff, minlength=N_ZONES),
        zone_miles=np.where(np.isnan(zone_miles), np.nan_to_num(overall), zone_miles),
        position=learn_map(pairs, pair_trips, pair_miles),
    )


def medians(groups: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    """Compute the median of each group's values, float64 [n_groups].

    Args:
        groups: [n] 0..n_groups - 1.
        values: [n], NaN ones do not count.
        n_groups: a group without values has the median NaN.
    """
    there = ~np.isnan(values)
    groups, values = groups[there], values[there]
    values = values[np.lexsort((values, groups))]
    counts = np.bincount(groups, minlength=n_groups)
    starts = np.cumsum(counts) - counts
    filled = np.flatnonzero(counts)
    low = starts[filled] + (counts[filled] - 1) // 2
    high = starts[filled] + counts[filled] // 2
    result = np.full(n_groups, np.nan)
    result[filled] = (values[low] + values[high]) / 2
    return result


def pair_miles_out_of_fold(trips: Trips) -> np.ndarray:
    """Compute each train row's median distance of its pair over the rows of other folds, [n].

    A row's own distance would otherwise be its pair's typical one wherever the pair is rare, and
    the model would trust that column more than it may on new trips.
    """
    pairs, pair_of_row = np.unique(pair_code(trips), return_inverse=True)
    miles = clean_miles(trips)
    fold = np.arange(len(trips)) % N_FOLDS
    result = np.empty(len(trips))
    for k in range(N_FOLDS):
        inside = fold == k
        others = medians(pair_of_row[~inside], miles[~inside], len(pairs))
        result[inside] = others[pair_of_row[inside]]
    return result
