"""Kinds of distance: how well a trip's distance is known when its minutes are predicted.

Every model is trained on the metered distance, which is known only after the trip, so errors
measured with it are not those that callers see. They send a route planner's distance, which is off
by some percentage, or none. So errors are measured with all of these.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from . import TripError
from .schema import Trips, clean_miles, has_distance_column

METERED, PLANNED_10, PLANNED_20 = "metered", "planned_10", "planned_20"
MISSING = "missing"
# kind -> its name for people
DISTANCE_KINDS: Mapping[str, str] = {
    METERED: "metered distance",
    PLANNED_10: "distance planned to ±10 %",
    PLANNED_20: "distance planned to ±20 %",
    MISSING: "no distance",
}
# standard deviation of log(planned / metered): two trips of three lie within that share
PLANNING_LOG_SD: Mapping[str, float] = {PLANNED_10: 0.10, PLANNED_20: 0.20}
# value of the parameter judge_by -> kind of distance with which candidates are chosen and judged
JUDGE_BY: Mapping[str, str] = {"metered": METERED, "planned": PLANNED_10, "missing": MISSING}
# of noise and samples, the same for models of every seed, so that all are measured on equal trips
SEED = 42


def apply_distance_kind(trips: Trips, kind: str, *, seed: int = SEED) -> Trips:
    """Return the trips as a caller knows them at pickup.

    A planned distance is the clean metered one times exp(s z), z standard normal, so that it is
    positive, and too long as often as too short. Trip i gets the i-th z, whatever the number of
    trips and s, so that kinds differ by nothing else.

    Args:
        trips: n trips with metered distances.
        kind: key of DISTANCE_KINDS. With METERED the trips are returned unchanged; a planned
            distance is missing where there is no clean metered one to derive it from.
        seed: of the noise.
    Returns:
        The same n trips in the same order; only distance_miles, miles [n], differs.
    Raises:
        TripError: there is no such kind.
    Source: Limpert et al., Log-normal distributions across the sciences, 2001 (errors that
        multiply).
    """
    if kind not in DISTANCE_KINDS:
        raise TripError(f"Unknown distance {kind!r}. Choose from {list(DISTANCE_KINDS)}.")
    if kind == METERED:
        return trips
    if kind == MISSING:
        return trips.without_distance()
    noise = np.random.default_rng(seed).standard_normal(len(trips))
    # the last digit of an exponential depends on the machine
    share = np.round(np.exp(PLANNING_LOG_SD[kind] * noise), 8)
    return replace(trips, distance_miles=clean_miles(trips) * share)


def sample_trips(trips: Trips, max_rows: int) -> Trips:
    """Return a sample of max_rows trips in their order, or all if they are no more.

    The sample is the same for every model.
    """
    return trips if len(trips) <= max_rows else trips.take(sample_rows(len(trips), max_rows))


def sample_rows(n_rows: int, max_rows: int) -> np.ndarray:
    """Choose max_rows of n_rows rows, or all if they are no more, ascending, int [m]."""
    if n_rows <= max_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(SEED).choice(n_rows, max_rows, replace=False))


def n_without_distance(trips: Trips) -> int:
    """Count the trips without a clean distance."""
    return int(np.isnan(clean_miles(trips)).sum())


def select_distance_kind(judge_by: str) -> str:
    """Return the kind of distance that a candidate is judged by.

    Raises:
        TripError: it is not a key of JUDGE_BY.
    """
    if judge_by not in JUDGE_BY:
        raise TripError(f"Unknown judge_by {judge_by!r}. Choose from {sorted(JUDGE_BY)}.")
    return JUDGE_BY[judge_by]


def distance_kind_of(taxi: str, kind: str = METERED) -> str:
    """Return `kind`, of DISTANCE_KINDS; MISSING if trips of this taxi never have a distance."""
    return kind if has_distance_column(taxi) else MISSING
