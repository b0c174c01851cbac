"""The feed of ended trips that scoring follows, from month to month, and its state as a file."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from storage import UserError
from storage.data.objects import check_object_writable, local_path, read_object, write_object
from storage.uris import without_credentials
from taxi import TripError, live, live_file
from taxi.cleaning import month_bounds
from taxi.live import BIN, MODES, Asked, Ended, LiveState
from taxi.live_file import CLOCK_SKEW, OtherModelError
from taxi.scoring import Prepared

BEGINNING = np.timedelta64(1, "D")  # of a month, until which its first trips may be late


class FeedSettings(NamedTuple):
    """How ended trips become known."""

    mode: str  # of MODES
    delay_minutes: float

    def __str__(self) -> str:
        """Write it as the tag says it."""
        return f"feed, {self.delay_minutes:g} min late" if self.mode == "feed" else self.mode


def check_feed(settings: FeedSettings, *, state_uri: str, scheduler: str) -> None:
    """Refuse what cannot be followed, before any work.

    Raises:
        TripError: there is no such mode.
        UserError: a state without a feed, or a feed on a cluster.
        StorageError: the state cannot be written.
    """
    if settings.mode not in MODES:
        raise TripError(f"Unknown live {settings.mode!r}. Choose from {list(MODES)}.")
    if settings.mode == "off" and state_uri:
        raise UserError("live_state has no effect with live=off. Pass -P live=feed with it.")
    if settings.mode != "off" and scheduler:
        raise UserError(
            f"live={settings.mode} follows the trips in the order of time, which workers side by "
            "side cannot. Leave out scheduler, or pass live=off."
        )
    if state_uri:
        check_object_writable(state_uri)


class RowTimes(NamedTuple):
    """What is kept of a month's rows to go through them in the order of time: 33 bytes a row."""

    trips: Ended  # every row; not a time, and zone 0, where it has none
    counts: np.ndarray  # bool [n]: an ended trip to be counted


def row_times(prepared: Prepared, predicted: np.ndarray) -> RowTimes:
    """Keep the times, zones and predictions of a batch, n rows in their order."""
    pickup, dropoff = (
        prepared.columns[role].to_numpy(zero_copy_only=False)
        for role in ("pickup_at", "dropoff_at")
    )
    start, end = (
        prepared.columns[role].fill_null(0).to_numpy() for role in ("pickup_zone", "dropoff_zone")
    )
    return RowTimes(Ended(pickup, dropoff, start, end, predicted), prepared.eligible)


class LiveFeed:
    """Where the feed stands; goes through months in the order of time, each once."""

    def __init__(self, settings: FeedSettings, state: LiveState | None, new: LiveState) -> None:
        """Begin.

        Args:
            settings: how ended trips become known.
            state: to go on from; None begins with the first month.
            new: a state without trips of this model and taxi.
        """
        self.settings = settings
        self.state = state
        self.new = new
        self.last: tuple[LiveState, Ended] | None = None  # what the last month began with

    def waits_for(self, month: str) -> bool:
        """Whether a month begins about now, and there is a state to go on with until it has trips.

        A clock that is hours ahead of New York asks for it before.
        """
        start = np.datetime64(month_bounds(month)[0])
        return self.state is not None and bool(abs(live_file.new_york_now() - start) < BEGINNING)

    def follow(self, month: str, parts: list[RowTimes]) -> np.ndarray:
        """Go through a month; gives each row's factor in the order of the file, NaN for none.

        Args:
            month: YYYY-MM, later than any before it.
            parts: all its rows, n of them.
        """
        start, end = (np.datetime64(bound, "m") for bound in month_bounds(month))
        columns = zip(*(part.trips for part in parts), strict=True)
        trips = Ended(*map(np.concatenate, columns))
        counts = np.concatenate([part.counts for part in parts])
        mode, delay = self.settings
        rows = np.flatnonzero(np.isfinite(trips.predicted) & (trips.pickup_at < end))
        pickup_at = trips.pickup_at[rows]
        known = live.known_until(pickup_at, mode, delay)
        asked = Asked(pickup_at, known, trips.pickup_zone[rows], trips.dropoff_zone[rows])
        told_from, told_until = live.known_until(np.array([start, end]), mode, delay)
        state = self.state or replace(self.new, clock=told_from)
        ended = self._with_late(trips.take(counts))
        self.last = (state, ended)
        replayed = live.replay(state, ended, asked, told_until)
        self.state = replayed.state
        factor = np.full(len(trips.pickup_at), np.nan)
        factor[rows] = replayed.factor
        return factor

    def _with_late(self, ended: Ended) -> Ended:
        """Add the trips of the last month that nobody had told of by its end."""
        if self.last is None or self.state is None:
            return ended
        before = self.last[1]
        pairs = zip(before.take(before.dropoff_at >= self.state.clock), ended, strict=True)
        return Ended(*(np.concatenate(pair) for pair in pairs))

    def final_state(self, month: str, *, now: np.datetime64) -> LiveState:
        """Count all that has ended in the last month, be it half told: what a server begins with.

        The clock stands at the last end of a trip, so that a month which grows can be gone on with.
        A trip that is still to end was told by a wrong clock: it would stop this one until then.

        Args:
            month: the last one.
            now: New York local time.
        """
        if self.last is None:
            return self.new
        state, ended = self.last
        ended = ended.take(live.countable(ended))
        ended = ended.take(ended.dropoff_at < np.datetime64(month_bounds(month)[1]))
        ended = ended.take(_have_ended(ended, month, now))
        if not len(ended.predicted):
            return state
        until = live.floor_to_bin(ended.dropoff_at.max()) + BIN
        none = Asked(*(column[:0] for column in (ended[0], ended[0], *ended[2:4])))
        return live.replay(state, ended, none, until).state


def _have_ended(ended: Ended, month: str, now: np.datetime64) -> np.ndarray:
    """Which trips have, bool [n]; says how many say so before their time."""
    to_come = ended.dropoff_at > now + CLOCK_SKEW
    if to_come.any():
        print(
            f"{month}: not counted for live_state, as they end after now, {str(now)[:16]} in New "
            f"York, by a wrong clock: trips {to_come.sum():,}"
        )
    return ~to_come


def open_feed(
    settings: FeedSettings, *, state_uri: str, new: LiveState, months: list[str]
) -> LiveFeed:
    """Go on from a state where there is one for this model, else begin.

    Raises:
        UserError: it is no live state, of other taxis, or has counted a month that is to come.
        StorageError: it cannot be read, or not be written.
    """
    content = read_object(state_uri) if state_uri else None
    state = None if content is None else _read(content, state_uri, new)
    if state is not None:
        _check_to_come(state, state_uri, months)
    if state_uri and local_path(state_uri) is None:
        # a store elsewhere tells who may write this very file only where it is written
        write_object(state_uri, live_file.write_state(new) if content is None else content)
    return LiveFeed(settings, state, new)


def _check_to_come(state: LiveState, uri: str, months: list[str]) -> None:
    """Refuse months that end before a state's clock, which goes forward alone."""
    over = [m for m in months if np.datetime64(month_bounds(m)[1], "m") <= state.clock]
    if not over:
        return
    named, end = ", ".join(over), "end" if over[1:] else "ends"
    leave = "" if over == months else f"Leave {named} out. "
    raise UserError(
        f"{without_credentials(uri)} has counted trips until {state.clock}, and {named} {end} "
        f"before. {leave}To score what is over, leave live_state out, and a level begins with it, "
        "or pass another live_state."
    )


def _read(content: bytes, uri: str, new: LiveState) -> LiveState | None:
    shown = without_credentials(uri)
    try:
        state = live_file.read_state(content, taxi=new.taxi, model_sha256=new.model_sha256)
        if state.clock > live_file.new_york_now() + CLOCK_SKEW:
            raise TripError(f"it is from the future: {state.clock}")
        return state if state.sums[0].any() else None  # of a run that ended before its first trip
    except OtherModelError as error:
        print(
            f"{shown} is started anew: {error}. Once it is written, a server with that other model "
            "predicts without a level."
        )
        return None
    except TripError as error:
        raise UserError(f"Cannot use {shown}: {error}. Pass another live_state.") from error


def save_feed(feed: LiveFeed, month: str, uri: str) -> None:
    """Write the state at the end of the last month for the next run, and for servers.

    Raises:
        StorageError: it cannot be written.
    """
    state = feed.final_state(month, now=live_file.new_york_now())
    write_object(uri, live_file.write_state(state))
