"""Find slices on which a candidate is significantly worse than the champion.

The rule. On a slice of n trips let c and h be the mean squared errors of candidate and champion on
the same trips. With k = (1 + max_loss)², the mean of d = (candidate's error)² - k (champion's
error)² is above 0 if the candidate's RMSE is larger by more than max_loss. Student's t of d with
n - 1 degrees of freedom gives a one-sided p-value. Over all m slices, the champion's own test
months among them, Holm steps down: the smallest p-value must be at most ALPHA / m, the next at most
ALPHA / (m - 1), and so on until one is not. Slices before that are significantly worse; the chance
that any of them is not is at most ALPHA, however the slices overlap. The least loss of a slice
follows from Fieller's lower bound of c / h, at the level of its step or of the one that failed.

Why not the bootstrap that judges the whole: on slices of 30 trips, percentiles of resamples refuse
up to nine times as many equal candidates as they should (`python -m bench slices`), while t refuses
no more than it should and needs only two passes over the errors.

Source: Holm, A simple sequentially rejective multiple test procedure, 1979; Fieller, Some problems
in interval estimation, 1954.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from .city import City
from .groups import Grouping, by_distance, pickup_hours
from .schema import Trips, zone_or_0
from .words import format_distance_band
from .zones import fit_zone_tables

ALPHA = 0.05  # family-wise error rate: chance of calling any slice worse that is not
MIN_SHARE = 0.02  # of the test trips; slices that hold no more than this are not tested
AIRPORTS = (1, 132, 138)  # TLC zones: Newark, JFK, LaGuardia
HOUR_BANDS = (0, 6, 10, 16, 20, 24)


class PairedErrors(NamedTuple):
    """The statistics a test needs of two models' squared errors on the same n trips, n > 1."""

    name: str  # of the slice
    n_trips: int
    candidate: float  # means, minutes²
    champion: float
    variances: tuple[float, float]  # of the candidate's and of the champion's
    covariance: float


class SliceLoss(NamedTuple):
    """How much larger the candidate's RMSE is than the champion's on a slice."""

    name: str
    n_trips: int
    loss: float  # share of the champion's RMSE; below 0 if the candidate's is smaller
    at_least: float  # lower confidence bound of the loss
    is_significant: bool  # more than the allowed loss


def slice_rows(trips: Trips, city: City | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the slices of n trips, empty ones too, each as its name and its rows, bool [n].

    Args:
        trips: with metered distances.
        city: slices by pickup are its boroughs; without it, quarters of a map learned from these
            trips.
    """
    band = np.searchsorted(HOUR_BANDS, pickup_hours(trips), side="right") - 1
    for number, (start, end) in enumerate(pairwise(HOUR_BANDS)):
        yield f"{start} to {end} h", band == number
    for name, rows in by_distance(trips).parts():
        yield format_distance_band(name), rows
    ends = (trips.pickup_zone, trips.dropoff_zone)
    yield "airports", np.any([np.isin(zone, AIRPORTS) for zone in ends], axis=0)
    yield from ((f"from {name}", rows) for name, rows in _parts_of_town(trips, city).parts())


def _parts_of_town(trips: Trips, city: City | None) -> Grouping:
    """Group n trips by the part of town that each begins in."""
    zone = zone_or_0(trips.pickup_zone)
    if city:
        borough = np.where(city.borough == "", "an unknown borough", city.borough)
        boroughs, number_of = np.unique(borough, return_inverse=True)
        return Grouping(boroughs.tolist(), number_of.astype(np.uint8)[zone])
    east, north = fit_zone_tables(trips).position[zone].T
    names = [*(f"map quarter {number}" for number in range(1, 5)), "zones off the map"]
    part = np.full(len(trips), 4, np.uint8)
    placed = np.flatnonzero(~np.isnan(east))
    middle = np.median(east[placed]) if len(placed) else 0.0
    for number, side in enumerate((placed[east[placed] <= middle], placed[east[placed] > middle])):
        upper = north[side] > (np.median(north[side]) if len(side) else 0.0)
        part[side] = 2 * number + upper
    return Grouping(names, part)


def pair_slices(
    trips: Trips, candidate: np.ndarray, champion: np.ndarray, city: City | None
) -> list[PairedErrors]:
    """Compare both models' errors on each slice that holds more than MIN_SHARE of n test trips.

    Args:
        trips: with metered distances and their minutes.
        candidate: [n] its predictions, minutes.
        champion: [n] its predictions, minutes.
        city: as for slice_rows.
    """
    min_trips = max(MIN_SHARE * len(trips), 1)
    return [
        pair_errors(name, trips.trip_minutes[rows], candidate[rows], champion[rows])
        for name, rows in slice_rows(trips, city)
        if rows.sum() > min_trips
    ]


def pair_errors(
    name: str, minutes: np.ndarray, candidate: np.ndarray, champion: np.ndarray
) -> PairedErrors:
    """Compute the statistics of two models' errors on n trips, n > 1.

    Args:
        name: of the slice.
        minutes: [n] measured.
        candidate: [n] its predictions, minutes.
        champion: [n] its predictions, minutes.
    """
    n = len(minutes)
    candidate_squares, champion_squares = (candidate - minutes) ** 2, (champion - minutes) ** 2
    means = float(candidate_squares.mean()), float(champion_squares.mean())
    deviations = candidate_squares - means[0], champion_squares - means[1]
    covariances = [
        float((a * b).sum() / (n - 1))
        for a, b in (deviations[:1] * 2, deviations[1:] * 2, deviations)
    ]
    return PairedErrors(name, n, *means, (covariances[0], covariances[1]), covariances[2])


def judge_slices(parts: Sequence[PairedErrors], max_loss: float) -> list[SliceLoss]:
    """Test on which slices the candidate is significantly worse, by the rule of this module.

    Args:
        parts: m slices; may be empty.
        max_loss: share by which the candidate's RMSE may be larger.
    Returns:
        One result for each slice, in their order.
    """
    p_values = [_p_value(part, max_loss) for part in parts]
    order = sorted(range(len(parts)), key=p_values.__getitem__)
    levels = [ALPHA / (len(parts) - rank) for rank in range(len(parts))]
    pairs = enumerate(zip(order, levels, strict=True))
    n_worse = next((rank for rank, (index, level) in pairs if p_values[index] > level), len(parts))
    rejected_levels = dict(zip(order[:n_worse], levels[:n_worse], strict=True))
    other_level = levels[n_worse] if n_worse < len(parts) else 0.0
    return [
        _loss(
            part,
            max_loss,
            rejected_levels.get(index, other_level),
            is_worse=index in rejected_levels,
        )
        for index, part in enumerate(parts)
    ]


def _p_value(part: PairedErrors, max_loss: float) -> float:
    k = (1 + max_loss) ** 2
    (var_candidate, var_champion), covariance = part.variances, part.covariance
    mean = part.candidate - k * part.champion
    variance = var_candidate - 2 * k * covariance + k * k * var_champion
    if variance <= 0:  # d is the same for all trips
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(part.n_trips - 1, -mean / sqrt(variance / part.n_trips)))


def _loss(part: PairedErrors, max_loss: float, level: float, *, is_worse: bool) -> SliceLoss:
    at_least = sqrt(_least_ratio(part, level)) - 1
    if is_worse:  # the test and the bound agree, but for their last digits
        at_least = max(at_least, max_loss)
    return SliceLoss(part.name, part.n_trips, _ratio(part) - 1, at_least, is_worse)


def _ratio(part: PairedErrors) -> float:
    """Divide the RMSE of the candidate by that of the champion."""
    if not part.champion:
        return inf if part.candidate else 1.0
    return sqrt(part.candidate / part.champion)


def _least_ratio(part: PairedErrors, level: float) -> float:
    """Return Fieller's one-sided lower bound of candidate / champion; 0 if there is none."""
    quantile = float(stdtrit(part.n_trips - 1, level))
    share = quantile**2 / part.n_trips
    (var_candidate, var_champion), covariance = part.variances, part.covariance
    a = part.champion**2 - share * var_champion
    b = part.candidate * part.champion - share * covariance
    c = part.candidate**2 - share * var_candidate
    if a <= 0:  # the champion's error does not differ significantly from 0
        return 0.0
    return max(0.0, (b - sqrt(max(b * b - a * c, 0.0))) / a)
