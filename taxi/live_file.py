"""The live state as a small JSON file, and how a server applies one."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from . import TripError
from .live import BIN, LEVELS, N_CLUSTERS, N_GROUPS, LiveState, NewTrips, factor_now, floor_to_bin
from .schema import N_ZONES, Trips
from .values import NEW_YORK

VERSION = 1  # increase it whenever LEVELS or BIN change
# a state decays by itself and still helps after three days; an older one means that its job broke
MAX_AGE = np.timedelta64(3, "D")
CLOCK_SKEW = 2 * BIN  # tolerated difference between machines' clocks
# pickups further before the state's clock are not corrected
MAX_BEFORE_CLOCK = np.timedelta64(60, "m")

# what json and numpy raise on malformed content
PARSE_ERRORS = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


class OtherModelError(TripError):
    """The state is intact, but belongs to another model."""


class LiveAnswer(NamedTuple):
    """Predictions corrected by the live state, n rows."""

    minutes: np.ndarray  # float64 [n]
    age_minutes: np.ndarray  # float64 [n], age of the state; NaN where it was not used


def write_state(state: LiveState) -> bytes:
    """Write a state as JSON, about 30 KB."""
    sums = {level.name: sums.tolist() for level, sums in zip(LEVELS, state.sums, strict=True)}
    fields = {
        "version": VERSION,
        "taxi": state.taxi,
        "model_sha256": state.model_sha256,
        "clock": str(state.clock),
        "cluster_of_zone": state.cluster_of_zone.tolist(),
        "sums": sums,
    }
    return json.dumps(fields).encode()


def read_state(content: bytes, *, taxi: str, model_sha256: str) -> LiveState:
    """Read a state that was written for this model.

    Raises:
        OtherModelError: it was written for another model.
        TripError: it is malformed, of another VERSION or for another kind of trips.
    """
    try:
        fields = json.loads(content)
        version = fields["version"]
    except PARSE_ERRORS as error:
        raise TripError("it is not whole JSON of a live state") from error
    if version != VERSION:
        raise TripError(f"it is of version {version!r}, this code reads {VERSION}")
    try:
        state = _restore(fields)
    except PARSE_ERRORS as error:
        raise TripError(f"its values cannot be read: {error}") from error
    if state.taxi != taxi:
        raise TripError(f"it is of {state.taxi} trips, not of {taxi} ones")
    if state.model_sha256 != model_sha256:
        raise OtherModelError(f"it is of another model, {state.model_sha256[:12]}")
    return state


def _restore(fields: Mapping[str, Any]) -> LiveState:
    sums = tuple(np.array(fields["sums"][level.name], np.float64) for level in LEVELS)
    clusters = np.array(fields["cluster_of_zone"], np.int64)
    clock = np.datetime64(fields["clock"], "m")
    for level, values in zip(LEVELS, sums, strict=True):
        if values.shape != (2, N_GROUPS[level.grouping]) or not np.isfinite(values).all():
            raise ValueError(f"sums of {level.name!r}")
        if (values[1] < 0).any():
            raise ValueError(f"sums of {level.name!r} are negative")
    if clusters.shape != (N_ZONES,) or clusters.min() < 0 or clusters.max() > N_CLUSTERS:
        raise ValueError("cluster_of_zone")
    if np.isnat(clock) or clock != floor_to_bin(clock):
        raise ValueError(f"clock {fields['clock']!r}")
    return LiveState(str(fields["taxi"]), str(fields["model_sha256"]), clock, clusters, sums)


def reason_unusable(state: LiveState, now: np.datetime64) -> str:
    """Say why a server must not use a state now; empty if it may.

    Args:
        state: as read.
        now: New York local time.
    """
    if state.clock > now + CLOCK_SKEW:
        return f"it is from the future: {state.clock}"
    if state.clock < now - MAX_AGE:
        return f"it is too old: {state.clock}"
    return ""


def apply_live(
    state: LiveState | None, trips: Trips, predicted: np.ndarray, now: np.datetime64
) -> LiveAnswer:
    """Correct predictions by the live state; a trip of the past keeps its prediction.

    Args:
        state: None if there is none; one that is unusable now is ignored.
        trips: n new trips.
        predicted: [n] minutes by the model alone.
        now: New York local time.
    """
    no_age = np.full(len(predicted), np.nan)
    if state is None or reason_unusable(state, now):
        return LiveAnswer(predicted, no_age)
    clock = np.full(len(predicted), state.clock)
    new_trips = NewTrips(trips.pickup_at, clock, trips.pickup_zone, trips.dropoff_zone)
    is_new = trips.pickup_at >= state.clock - MAX_BEFORE_CLOCK
    age = max(float((now - state.clock) / np.timedelta64(1, "m")), 0.0)
    factor = np.where(is_new, factor_now(state, new_trips), 1.0)
    return LiveAnswer(predicted * factor, np.where(is_new, age, no_age))


def new_york_now() -> np.datetime64:
    """Return the city's wall clock, datetime64[us]."""
    return to_new_york_time(datetime.now(NEW_YORK))


def to_new_york_time(now: datetime) -> np.datetime64:
    """Convert an instant to the city's wall clock, datetime64[us].

    In autumn an hour repeats. While it does, the clock stands at the end of that hour: trips
    already reported from the first pass must not appear to lie in the future.
    """
    local = now.astimezone(NEW_YORK)
    if local.fold:
        local = local.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return np.datetime64(local.replace(tzinfo=None), "us")
