"""Correct predictions by the trips that have just ended: one factor for each new trip.

A model knows only the months it was trained on. Each level of LEVELS compares how long later trips
took with what was predicted, for the whole city, parts of it or single zones. Its sums decay
exponentially, also while no trips arrive, so a late or dead feed falls back to the model alone.

Nothing here looks ahead: a trip counts from the end of the BIN in which it ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .schema import MAX_MINUTES, MIN_MINUTES, N_ZONES, zone_or_0

BIN_MINUTES = 5
BIN = np.timedelta64(BIN_MINUTES, "m")
BLOCK = np.timedelta64(1, "D")  # sums are held in memory for the bins of one block
CLIP_MINUTES = 15.0  # residuals are clipped to this, so that one outlier does not move the city
FACTORS = (0.5, 2.0)  # bounds of the factor, whatever a feed holds
N_HALVINGS = 4  # of the map, which give 16 clusters of zones
N_CLUSTERS = 2**N_HALVINGS
MODES = ("off", "nightly", "feed")


class Level(NamedTuple):
    """One correction by ended trips, applied to what the levels before it predict."""

    name: str
    grouping: str  # key of N_GROUPS
    time_constant_minutes: float  # the sums decay by a factor of e in so many minutes
    prior: float  # pseudo-minutes of trips that took as predicted; shrinks the factor towards 1
    weight: float


# Chosen by RMSE on 2021-02, 2022-02, 2023-02 and 2023-03 together, with feeds delayed by 15 min to
# a day; halving or doubling any one value costs less than 0.01 min
LEVELS = (
    Level("days", "city", time_constant_minutes=2 * 1440, prior=3000, weight=1.0),
    Level("hour", "city", time_constant_minutes=60, prior=500, weight=1.0),
    Level("pickup part", "pickup_cluster", time_constant_minutes=120, prior=600, weight=0.8),
    Level("pickup zone", "pickup_zone", time_constant_minutes=10 * 1440, prior=400, weight=0.5),
    Level("dropoff zone", "dropoff_zone", time_constant_minutes=10 * 1440, prior=400, weight=0.5),
    Level("dropoff part", "dropoff_cluster", time_constant_minutes=120, prior=600, weight=0.6),
    Level("pair of parts", "cluster_pair", time_constant_minutes=10 * 1440, prior=600, weight=0.6),
)
N_CLUSTERS_OR_NONE = N_CLUSTERS + 1  # one more for zones without a position on the map
# how a level groups trips -> number of groups
N_GROUPS = {
    "city": 1,
    "pickup_cluster": N_CLUSTERS_OR_NONE,
    "dropoff_cluster": N_CLUSTERS_OR_NONE,
    "cluster_pair": N_CLUSTERS_OR_NONE**2,
    "pickup_zone": N_ZONES,
    "dropoff_zone": N_ZONES,
}


class EndedTrips(NamedTuple):
    """n ended trips in any order, and their predictions by the model alone."""

    pickup_at: np.ndarray  # datetime64[us] [n], New York local time
    dropoff_at: np.ndarray  # datetime64[us] [n]; NaT where unknown
    pickup_zone: np.ndarray  # int32 [n]
    dropoff_zone: np.ndarray  # int32 [n]
    predicted: np.ndarray  # float64 [n] minutes

    @property
    def minutes(self) -> np.ndarray:
        """How long each trip took, [n]; NaN where unknown."""
        return (self.dropoff_at - self.pickup_at) / np.timedelta64(1, "m")

    def take(self, rows: np.ndarray) -> "EndedTrips":
        """Select rows by index or mask, in that order."""
        return EndedTrips(*(column[rows] for column in self))


class NewTrips(NamedTuple):
    """n new trips in any order, and up to when ended trips are known for each."""

    pickup_at: np.ndarray  # datetime64[us] [n]
    known_until: np.ndarray  # datetime64[m] [n], start of a bin: only trips ended before it count
    pickup_zone: np.ndarray  # int32 [n]
    dropoff_zone: np.ndarray  # int32 [n]


@dataclass(frozen=True)
class LiveState:
    """What has been learned from the ended trips so far; immutable."""

    taxi: str
    model_sha256: str  # of the model whose predictions the trips were compared with
    clock: np.datetime64  # [m], start of a bin: every trip that ended before it is counted
    cluster_of_zone: np.ndarray  # int64 [N_ZONES], N_CLUSTERS for a zone without a position
    sums: tuple[np.ndarray, ...]  # per level: decayed residuals, predicted minutes; [2, groups]


class Replay(NamedTuple):
    """The result of replaying a period of time."""

    state: LiveState  # at its end
    factor: np.ndarray  # [n], of the new trips; NaN where the state began too late


def new_state(
    taxi: str, model_sha256: str, clock: np.datetime64, position: np.ndarray | None
) -> LiveState:
    """Create a state in which no trips are counted yet.

    Args:
        taxi: key of schema.TAXIS.
        model_sha256: digest of the model.
        clock: time from which trips count.
        position: [N_ZONES, 2] of the zones on the model's map, NaN where unknown; None if the model
            has no map.
    """
    sums = tuple(np.zeros((2, N_GROUPS[level.grouping])) for level in LEVELS)
    return LiveState(taxi, model_sha256, floor_to_bin(clock), cluster_zones(position), sums)


def cluster_zones(position: np.ndarray | None) -> np.ndarray:
    """Cut the map into N_CLUSTERS parts with about equally many zones, int64 [N_ZONES].

    Each part is halved across its longer side, which needs no random start.
    """
    clusters = np.full(N_ZONES, N_CLUSTERS)
    if position is None:
        return clusters
    parts = [np.flatnonzero(np.isfinite(position).all(axis=1))]
    for _ in range(N_HALVINGS):
        parts = [half for part in parts for half in _halve(part, position[part])]
    for cluster, part in enumerate(parts):
        clusters[part] = cluster
    return clusters


def _halve(zones: np.ndarray, position: np.ndarray) -> list[np.ndarray]:
    if len(zones) < 2:
        return [zones, zones[:0]]
    axis = int(np.ptp(position, axis=0).argmax())
    order = zones[np.argsort(position[:, axis], kind="stable")]
    return [order[: len(order) // 2], order[len(order) // 2 :]]


def floor_to_bin(times: Any) -> Any:
    """Round times [n], or a single one, down to the start of their bin, datetime64[m]."""
    minutes = np.asarray(times).astype("datetime64[m]").astype(np.int64)
    return (minutes // BIN_MINUTES * BIN_MINUTES).astype("datetime64[m]")


def known_until(pickup_at: np.ndarray, mode: str, delay_minutes: float) -> np.ndarray:
    """Return up to when ended trips are known at each pickup, datetime64[m] [n].

    Args:
        pickup_at: [n].
        mode: nightly (up to midnight before the pickup) or feed.
        delay_minutes: how late a feed reports an ended trip; rounded up to whole bins.
    """
    if mode == "nightly":
        return pickup_at.astype("datetime64[D]").astype("datetime64[m]")
    return floor_to_bin(pickup_at) - int(np.ceil(delay_minutes / BIN_MINUTES)) * BIN


def is_countable(ended: EndedTrips) -> np.ndarray:
    """Tell which trips are plausible, in duration and prediction, and no duplicates; bool [n]."""
    minutes = ended.minutes
    with np.errstate(invalid="ignore"):
        is_valid = (minutes >= MIN_MINUTES) & (minutes <= MAX_MINUTES) & (ended.predicted > 0)
    is_valid &= np.isfinite(ended.predicted)
    return is_valid & _is_first_of_duplicates(ended)


def _is_first_of_duplicates(ended: EndedTrips) -> np.ndarray:
    """Tell which rows are the first with their times and zones, bool [n]."""
    ends = zone_or_0(ended.pickup_zone).astype(np.int64) * N_ZONES + zone_or_0(ended.dropoff_zone)
    keys = (ends, ended.dropoff_at.astype(np.int64), ended.pickup_at.astype(np.int64))
    order = np.lexsort(keys)  # stable: of equal rows the first comes first
    first = np.ones(len(order), bool)
    same = [key[order][1:] == key[order][:-1] for key in keys]
    first[order[1:]] = ~np.logical_and.reduce(same)
    return first


def replay(
    state: LiveState, ended: EndedTrips, new_trips: NewTrips, until: np.datetime64
) -> Replay:
    """Replay a period: count trips as they end, and compute each new trip's factor at its time.

    Args:
        state: at the start; trips that ended before its clock are counted in it already.
        ended: n trips in any order; implausible ones and duplicates do not count.
        new_trips: m trips in any order, with known_until <= until.
        until: end of the period, start of a bin; trips that end later do not count yet.
    """
    ended = ended.take(is_countable(ended))
    ended = ended.take((ended.dropoff_at >= state.clock) & (ended.dropoff_at < until))
    # simultaneous trips in one order, whatever the file's: the last digit of a sum depends on it
    ended = ended.take(np.lexsort((ended.pickup_at, ended.predicted, ended.dropoff_at)))
    factor = np.full(len(new_trips.pickup_at), np.nan)
    rows = np.argsort(new_trips.known_until, kind="stable")
    sorted_until = new_trips.known_until[rows]
    for start, end in pairwise(_block_bounds(state.clock, until)):
        low, high = np.searchsorted(ended.dropoff_at, [start, end])
        history = _history(state, ended.take(np.arange(low, high)), int((end - start) / BIN))
        low, high = np.searchsorted(sorted_until, [start, end])
        in_block = rows[low:high]
        factor[in_block] = _factors(
            state, history, NewTrips(*(column[in_block] for column in new_trips))
        )
        state = _state_at_end(state, history, end)
    after_end = rows[np.searchsorted(sorted_until, state.clock) :]
    factor[after_end] = factor_now(state, NewTrips(*(column[after_end] for column in new_trips)))
    return Replay(state, factor)


def _block_bounds(start: np.datetime64, end: np.datetime64) -> list[np.datetime64]:
    if end <= start:
        return [start]
    return [*np.arange(start, end, BLOCK), end]


def factor_now(state: LiveState, new_trips: NewTrips) -> np.ndarray:
    """Compute the factors of n trips from a state as it is, decayed up to each pickup, [n]."""
    history = [sums[None] for sums in state.sums]
    new_trips = new_trips._replace(known_until=np.full(len(new_trips.pickup_at), state.clock))
    return _factors(state, history, new_trips)


def _history(state: LiveState, ended: EndedTrips, n_bins: int) -> list[np.ndarray]:
    """Compute each level's sums before each bin and after the last, [n_bins + 1, 2, groups]."""
    bins = ((ended.dropoff_at - state.clock) // BIN).astype(np.int64)
    expected = ended.predicted
    histories = []
    for level, sums in zip(LEVELS, state.sums, strict=True):
        group = _groups(level, state, ended)
        residual = np.clip(ended.minutes - expected, -CLIP_MINUTES, CLIP_MINUTES)
        index, size = bins * sums.shape[1] + group, n_bins * sums.shape[1]
        arrived_sums = [np.bincount(index, values, size) for values in (residual, expected)]
        new = np.stack([values.reshape(n_bins, -1) for values in arrived_sums], axis=1)
        histories.append(_accumulate(sums, new, level))
        expected = expected * _multiplier(level, histories[-1][bins, :, group], 1.0)
    return histories


def _accumulate(sums: np.ndarray, bin_sums: np.ndarray, level: Level) -> np.ndarray:
    """Add each bin's sums, [b, 2, groups], to sums that decay from bin to bin."""
    remaining = _remaining_share(BIN_MINUTES, level)
    history = np.empty((len(bin_sums) + 1, *sums.shape))
    history[0] = sums
    for index, values in enumerate(bin_sums):
        history[index + 1] = (history[index] + values) * remaining
    return history


def _remaining_share(minutes: np.ndarray | float, level: Level) -> np.ndarray:
    """Return the share of a level's sums that is left after so many minutes, 0..1."""
    # the last digit of an exponential depends on the machine
    return np.round(np.exp(-minutes / level.time_constant_minutes), 12)


def _factors(state: LiveState, history: Sequence[np.ndarray], new_trips: NewTrips) -> np.ndarray:
    """Multiply the levels' factors of n trips, [n]."""
    bins = ((new_trips.known_until - state.clock) // BIN).astype(np.int64)
    age = (floor_to_bin(new_trips.pickup_at) - new_trips.known_until) / np.timedelta64(1, "m")
    factor = np.ones(len(bins))
    for level, sums in zip(LEVELS, history, strict=True):
        remaining = _remaining_share(np.maximum(age, 0), level)
        factor *= _multiplier(level, sums[bins, :, _groups(level, state, new_trips)], remaining)
    return np.clip(factor, *FACTORS)


def _multiplier(level: Level, sums: np.ndarray, remaining: np.ndarray | float) -> np.ndarray:
    """Turn sums [n, 2], of which a share [n] is left, into a level's factor [n]."""
    return 1 + level.weight * sums[:, 0] * remaining / (sums[:, 1] * remaining + level.prior)


def _groups(level: Level, state: LiveState, trips: EndedTrips | NewTrips) -> np.ndarray:
    """Return the group of a level that each trip belongs to, int64 [n]."""
    pickup, dropoff = zone_or_0(trips.pickup_zone), zone_or_0(trips.dropoff_zone)
    if level.grouping == "city":
        return np.zeros(len(pickup), np.int64)
    if level.grouping in ("pickup_zone", "dropoff_zone"):
        return (pickup if level.grouping == "pickup_zone" else dropoff).astype(np.int64)
    start, end = state.cluster_of_zone[pickup], state.cluster_of_zone[dropoff]
    if level.grouping == "cluster_pair":
        return start * N_CLUSTERS_OR_NONE + end
    return start if level.grouping == "pickup_cluster" else end


def _state_at_end(
    state: LiveState, history: Sequence[np.ndarray], clock: np.datetime64
) -> LiveState:
    sums = tuple(values[-1] for values in history)
    return LiveState(state.taxi, state.model_sha256, clock, state.cluster_of_zone, sums)
