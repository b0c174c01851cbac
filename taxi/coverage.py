"""Coverage and reliability of quantiles: the shares of trips below them, and a picture."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .groups import Grouping, by_distance, by_hour
from .schema import Trips
from .spread import Calibration, fit_spread
from .style import BLUE, GREY, new_grid, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOW, HIGH = 0.1, 0.9  # levels of the interval whose coverage is measured
NOMINAL_COVERAGE = HIGH - LOW
RELIABILITY_LEVELS = np.arange(5, 100, 5) / 100
ALL_TRIPS = "all"
ALL_WITHOUT_DISTANCE = "all trips, asked with none"  # listed as one of the distance bands


class GroupCoverage(NamedTuple):
    """Coverage of the intervals on a group of trips."""

    kind: str
    group: str
    n_trips: int
    coverage: float  # share of the trips within their interval
    below: float  # share of the trips that are shorter
    above: float  # share of the trips that are longer
    width: float  # mean width of the interval, minutes


def coverage_by_group(trips: Trips, low: np.ndarray, high: np.ndarray) -> list[GroupCoverage]:
    """Measure the coverage of intervals: over all trips, by hour and by distance.

    Args:
        trips: n trips with their minutes, n > 0.
        low: [n] minutes, the lower ends.
        high: [n] minutes, the upper ends; both ends belong to the interval.
    Returns:
        All trips first, then the groups of each kind in their order; trips without a clean
        distance come last, as groups.NO_DISTANCE.
    """
    groupings = {
        ALL_TRIPS: Grouping([ALL_TRIPS], np.zeros(len(trips), np.uint8)),
        "hour": by_hour(trips),
        "distance": by_distance(trips),
    }
    below, above, width = trips.trip_minutes < low, trips.trip_minutes > high, high - low
    coverages = []
    for kind, grouping in groupings.items():
        for name, rows in grouping.parts():
            parts = [float(values[rows].mean()) for values in (below, above, width)]
            within = float((~below & ~above)[rows].mean())
            coverages.append(GroupCoverage(kind, name, int(rows.sum()), within, *parts))
    return coverages


def measure_reliability(calibration: Calibration) -> np.ndarray | None:
    """Measure the share of trips that are at most as long as each quantile of RELIABILITY_LEVELS.

    The spread is fitted on the earlier half of the trips and tested on the later one, which it has
    not seen.

    Returns:
        The share of trips, 0..1, [levels]; None if there are too few trips.
    """
    order = np.argsort(calibration.trips.pickup_at, kind="stable")
    earlier, later = (calibration.take(rows) for rows in np.array_split(order, 2))
    if not (spread := fit_spread(earlier)):
        return None
    # the later half may be empty, but then the earlier one is too small for a spread
    minutes = later.trips.trip_minutes[:, None]
    quantiles = spread.quantiles(later.trips, later.predicted, list(RELIABILITY_LEVELS))
    return np.asarray((minutes <= quantiles).mean(axis=0))


@styled
def draw_reliability(observed: np.ndarray) -> "Figure":
    """Draw the observed shares of trips against the nominal levels.

    Args:
        observed: by `measure_reliability`.
    """
    figure, ((axis,),) = new_grid(6, 6, below=0.5)
    axis.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=0.8)
    axis.plot(100 * RELIABILITY_LEVELS, 100 * observed, "o-", color=BLUE)
    max_gap = float(np.abs(observed - RELIABILITY_LEVELS).max())
    axis.set(
        xlabel="share of trips that a quantile promises, %",
        ylabel="later trips that were at most as long, %",
        title=f"Quantiles keep their promise within {100 * max_gap:.1f} points\n"
        "(fitted on the earlier half of valid, measured on the later)",
    )
    return figure
