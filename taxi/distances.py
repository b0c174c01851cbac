"""How well a trip's distance is known when its minutes are predicted.

Every model is trained on the metered distance, which is known only after the trip: an error that is
measured with it is one that no caller will see. A caller sends what a route planner says, which is
off by some share either way, or nothing. So each error is measured with all of them.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from . import TripError
from .schema import Trips, clean_miles, knows_distance

METERED, PLANNED_10, PLANNED_20 = "metered", "planned_10", "planned_20"
MISSING = "missing"
# kind -> how people read it
KINDS: Mapping[str, str] = {
    METERED: "metered distance",
    PLANNED_10: "distance planned to ±10 %",
    PLANNED_20: "distance planned to ±20 %",
    MISSING: "no distance",
}
# standard deviation of log(planned / metered): two trips of three lie within that share
SPREADS: Mapping[str, float] = {PLANNED_10: 0.10, PLANNED_20: 0.20}
# value of the parameter judge_by -> the kind that a candidate is chosen and judged by
JUDGE_BY: Mapping[str, str] = {"metered": METERED, "planned": PLANNED_10, "missing": MISSING}
# of noise and samples, and one for all: models of every seed are measured on the very same trips
SEED = 42


def as_known(trips: Trips, kind: str, *, seed: int = SEED) -> Trips:
    """Return the trips as a caller knows them at pickup.

    A planned distance is the clean metered one times exp(s z), z standard normal, so that it is
    positive and too long as often as too short. Trip i gets the i-th z, however many trips follow
    and whichever s, so that kinds differ by nothing else.

    Args:
        trips: n trips, their distances as metered.
        kind: of KINDS. Metered are the trips as they are; a distance that is planned is missing
            where the metered one is no clean one, for nobody knows what was planned.
        seed: of the noise.
    Returns:
        The same n trips in the same order; only distance_miles, miles [n], differs.
    Raises:
        TripError: there is no such kind.
    Source: Limpert et al., Log-normal distributions across the sciences, 2001 (errors that
        multiply).
    """
    if kind not in KINDS:
        raise TripError(f"Unknown distance {kind!r}. Choose from {list(KINDS)}.")
    if kind == METERED:
        return trips
    if kind == MISSING:
        return trips.without_distance()
    noise = np.random.default_rng(seed).standard_normal(len(trips))
    # the last digit of an exponential is the machine's
    share = np.round(np.exp(SPREADS[kind] * noise), 8)
    return replace(trips, distance_miles=clean_miles(trips) * share)


def sample(trips: Trips, max_rows: int) -> Trips:
    """Return all n trips, or so many of them in their order: the same for every model."""
    return trips if len(trips) <= max_rows else trips.take(sample_rows(len(trips), max_rows))


def sample_rows(n_rows: int, max_rows: int) -> np.ndarray:
    """Choose all of n rows, or so many of them, ascending, int [m]."""
    if n_rows <= max_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(SEED).choice(n_rows, max_rows, replace=False))


def n_unknown(trips: Trips) -> int:
    """Count the trips without a clean distance, whatever kind is asked for."""
    return int(np.isnan(clean_miles(trips)).sum())


def select_kind(judge_by: str) -> str:
    """Return the kind of distance that a candidate is judged by.

    Raises:
        TripError: the value means none.
    """
    if judge_by not in JUDGE_BY:
        raise TripError(f"Unknown judge_by {judge_by!r}. Choose from {sorted(JUDGE_BY)}.")
    return JUDGE_BY[judge_by]


def kind_of(taxi: str, kind: str = METERED) -> str:
    """Return a kind of KINDS, or that of no distance where the trips of a taxi never have one."""
    return kind if knows_distance(taxi) else MISSING
