"""The live state as a small JSON file, and what a server does with one."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from . import TripError
from .live import BIN, LEVELS, N_CLUSTERS, N_GROUPS, Asked, LiveState, factor_now, floor_to_bin
from .schema import N_ZONES, Trips
from .values import CITY_CLOCK

VERSION = 1  # whatever changes LEVELS or BIN changes it too
# a state fades by itself, and one of three days still gains; an older one is of a job that broke
MAX_AGE = np.timedelta64(3, "D")
CLOCK_SKEW = 2 * BIN  # that machines may differ by
REPLAYED = np.timedelta64(60, "m")  # a pickup longer before the state's clock is of the past

# what json and numpy raise where bytes are not what they should be
UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


class OtherModelError(TripError):
    """The state is whole, and of another model."""


class LiveAnswer(NamedTuple):
    """Predictions at the state's level, n rows."""

    minutes: np.ndarray  # float64 [n]
    age_minutes: np.ndarray  # float64 [n], how old the state is; NaN where none was used


def write_state(state: LiveState) -> bytes:
    """Write a state as JSON, about 30 KB."""
    sums = {level.name: sums.tolist() for level, sums in zip(LEVELS, state.sums, strict=True)}
    about = {
        "version": VERSION,
        "taxi": state.taxi,
        "model_sha256": state.model_sha256,
        "clock": str(state.clock),
        "cluster_of_zone": state.cluster_of_zone.tolist(),
        "sums": sums,
    }
    return json.dumps(about).encode()


def read_state(content: bytes, *, taxi: str, model_sha256: str) -> LiveState:
    """Read a state that was kept for this model.

    Raises:
        OtherModelError: it was kept for another model.
        TripError: it is cut, of another version of this code or of other taxis.
    """
    try:
        about = json.loads(content)
        version = about["version"]
    except UNREADABLE as error:
        raise TripError("it is not whole JSON of a live state") from error
    if version != VERSION:
        raise TripError(f"it is of version {version!r}, this code reads {VERSION}")
    try:
        state = _restore(about)
    except UNREADABLE as error:
        raise TripError(f"its values cannot be read: {error}") from error
    if state.taxi != taxi:
        raise TripError(f"it is of {state.taxi} trips, not of {taxi} ones")
    if state.model_sha256 != model_sha256:
        raise OtherModelError(f"it is of another model, {state.model_sha256[:12]}")
    return state


def _restore(about: Mapping[str, Any]) -> LiveState:
    sums = tuple(np.array(about["sums"][level.name], np.float64) for level in LEVELS)
    clusters = np.array(about["cluster_of_zone"], np.int64)
    clock = np.datetime64(about["clock"], "m")
    for level, values in zip(LEVELS, sums, strict=True):
        if values.shape != (2, N_GROUPS[level.by]) or not np.isfinite(values).all():
            raise ValueError(f"sums of {level.name!r}")
        if (values[1] < 0).any():
            raise ValueError(f"sums of {level.name!r} are negative")
    if clusters.shape != (N_ZONES,) or clusters.min() < 0 or clusters.max() > N_CLUSTERS:
        raise ValueError("cluster_of_zone")
    if np.isnat(clock) or clock != floor_to_bin(clock):
        raise ValueError(f"clock {about['clock']!r}")
    return LiveState(str(about["taxi"]), str(about["model_sha256"]), clock, clusters, sums)


def why_unusable(state: LiveState, now: np.datetime64) -> str:
    """Say why a server must not use a state now; empty where it may.

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
    """Bring predictions to the state's level.

    Args:
        state: None where there is none; one that is unusable now is left out.
        trips: n new trips.
        predicted: [n] minutes of the model alone.
        now: New York local time.
    """
    none = np.full(len(predicted), np.nan)
    if state is None or why_unusable(state, now):
        return LiveAnswer(predicted, none)
    clock = np.full(len(predicted), state.clock)
    asked = Asked(trips.pickup_at, clock, trips.pickup_zone, trips.dropoff_zone)
    is_new = trips.pickup_at >= state.clock - REPLAYED
    age = max(float((now - state.clock) / np.timedelta64(1, "m")), 0.0)
    factor = np.where(is_new, factor_now(state, asked), 1.0)
    return LiveAnswer(predicted * factor, np.where(is_new, age, none))


def new_york_now() -> np.datetime64:
    """Return the city's wall clock, datetime64[us]."""
    return city_time(datetime.now(CITY_CLOCK))


def city_time(now: datetime) -> np.datetime64:
    """Read a moment off the city's clock, datetime64[us].

    The hour that autumn repeats stands at its end the second time: until there a feed has told
    of trips already, and none of them is from the future.
    """
    local = now.astimezone(CITY_CLOCK)
    if local.fold:
        local = local.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return np.datetime64(local.replace(tzinfo=None), "us")
