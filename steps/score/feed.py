"""The feed of ended trips that score follows from month to month, and its state as a file."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from storage import UserError
from storage.data.objects import check_object_writable, local_path, read_object, write_object
from storage.uris import without_credentials
from taxi import TripError, live, live_file
from taxi.cleaning import month_bounds
from taxi.live import BIN, MODES, EndedTrips, LiveState, NewTrips
from taxi.live_file import CLOCK_SKEW, OtherModelError
from taxi.scoring import PreparedRows

BEGINNING = np.timedelta64(1, "D")  # how far from a month's start it may still be without trips


class FeedSettings(NamedTuple):
    """How ended trips become known."""

    mode: str  # one of MODES
    delay_minutes: float

    def __str__(self) -> str:
        """Return the text of the tag `live`."""
        return f"feed, {self.delay_minutes:g} min late" if self.mode == "feed" else self.mode


def check_feed(settings: FeedSettings, *, state_uri: str, scheduler: str) -> None:
    """Check that a feed can be followed, before any work.

    Raises:
        TripError: there is no such mode.
        UserError: there is a state without a feed, or a feed on a cluster.
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
    """What is kept of a month's rows to replay them in order of time: 33 bytes a row."""

    trips: EndedTrips  # every row; NaT for a missing time, 0 for a missing zone
    counts: np.ndarray  # bool [n]: whether it counts as an ended trip


def row_times(prepared: PreparedRows, predicted: np.ndarray) -> RowTimes:
    """Extract the times, zones and predictions of a batch of n rows, in its order."""
    pickup, dropoff = (
        prepared.columns[role].to_numpy(zero_copy_only=False)
        for role in ("pickup_at", "dropoff_at")
    )
    start, end = (
        prepared.columns[role].fill_null(0).to_numpy() for role in ("pickup_zone", "dropoff_zone")
    )
    return RowTimes(EndedTrips(pickup, dropoff, start, end, predicted), prepared.eligible)


class LiveFeed:
    """The state of the feed; it goes through months in order of time, once each."""

    def __init__(self, settings: FeedSettings, state: LiveState | None, new: LiveState) -> None:
        """Set up the feed.

        Args:
            settings: how ended trips become known.
            state: to continue from; None = begin with the first month.
            new: an empty state for this model and taxi.
        """
        self.settings = settings
        self.state = state
        self.new = new
        # state before the last month, its trips
        self.last: tuple[LiveState, EndedTrips] | None = None

    def waits_for(self, month: str) -> bool:
        """Whether a month begins about now, so that an existing state stays until it has trips.

        A caller whose clock is hours ahead of New York may ask for a month before it begins.
        """
        start = np.datetime64(month_bounds(month)[0])
        return self.state is not None and bool(abs(live_file.new_york_now() - start) < BEGINNING)

    def follow(self, month: str, parts: list[RowTimes]) -> np.ndarray:
        """Replay a month; return each row's factor [n] in the file's order, NaN for none.

        Args:
            month: YYYY-MM, later than all months before.
            parts: all n rows of the month.
        """
        start, end = (np.datetime64(bound, "m") for bound in month_bounds(month))
        columns = zip(*(part.trips for part in parts), strict=True)
        trips = EndedTrips(*map(np.concatenate, columns))
        counts = np.concatenate([part.counts for part in parts])
        mode, delay = self.settings
        rows = np.flatnonzero(np.isfinite(trips.predicted) & (trips.pickup_at < end))
        pickup_at = trips.pickup_at[rows]
        known = live.known_until(pickup_at, mode, delay)
        new_trips = NewTrips(pickup_at, known, trips.pickup_zone[rows], trips.dropoff_zone[rows])
        known_from, known_to = live.known_until(np.array([start, end]), mode, delay)
        state = self.state or replace(self.new, clock=known_from)
        ended = self._with_late(trips.take(counts))
        self.last = (state, ended)
        replayed = live.replay(state, ended, new_trips, known_to)
        self.state = replayed.state
        factor = np.full(len(trips.pickup_at), np.nan)
        factor[rows] = replayed.factor
        return factor

    def _with_late(self, ended: EndedTrips) -> EndedTrips:
        """Add the trips of the last month that had not become known by its end."""
        if self.last is None or self.state is None:
            return ended
        before = self.last[1]
        pairs = zip(before.take(before.dropoff_at >= self.state.clock), ended, strict=True)
        return EndedTrips(*(np.concatenate(pair) for pair in pairs))

    def final_state(self, month: str, *, now: np.datetime64) -> LiveState:
        """Return the state that a server starts with: all trips ended in the last month count.

        The month may be incomplete: the clock stops after its last trip's end, so that a file that
        grows can be continued. A trip that ends in the future comes from a wrong clock, and is left
        out: it would stop this clock until then.

        Args:
            month: the last one.
            now: New York local time.
        """
        if self.last is None:
            return self.new
        state, ended = self.last
        ended = ended.take(live.is_countable(ended))
        ended = ended.take(ended.dropoff_at < np.datetime64(month_bounds(month)[1]))
        ended = ended.take(_have_ended(ended, month, now))
        if not len(ended.predicted):
            return state
        until = live.floor_to_bin(ended.dropoff_at.max()) + BIN
        none = NewTrips(*(column[:0] for column in (ended[0], ended[0], *ended[2:4])))
        return live.replay(state, ended, none, until).state


def _have_ended(ended: EndedTrips, month: str, now: np.datetime64) -> np.ndarray:
    """Return which trips have ended by now, bool [n]; print how many claim to end later."""
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
    """Open a feed that continues from a state, if there is one for this model.

    Raises:
        UserError: the file is not a live state, is of another taxi, or has counted a month that
            is to be scored.
        StorageError: it cannot be read, or cannot be written.
    """
    content = read_object(state_uri) if state_uri else None
    state = None if content is None else _read(content, state_uri, new)
    if state is not None:
        _check_to_come(state, state_uri, months)
    if state_uri and local_path(state_uri) is None:
        # whether a remote store lets us write this very file shows only when it is written
        write_object(state_uri, live_file.write_state(new) if content is None else content)
    return LiveFeed(settings, state, new)


def _check_to_come(state: LiveState, uri: str, months: list[str]) -> None:
    """Refuse months that end before a state's clock, which only moves forward."""
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
        return state if state.sums[0].any() else None  # empty: its run ended before any trip
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
