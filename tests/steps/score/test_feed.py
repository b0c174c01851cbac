"""The feed that scoring follows: month by month, incomplete, late, and each trip only once."""

import numpy as np
import pytest

from steps.score.feed import FeedSettings, LiveFeed, RowTimes
from taxi import live, live_file
from taxi.live import EndedTrips, LiveState
from tests.conftest import random_trips

JANUARY, FEBRUARY = "2021-01", "2021-02"
END = np.datetime64("2021-02-01T00:00")
NOW = np.datetime64("2026-01-01T00:00")


def make_rows(n: int = 4_000, seed: int = 1, days_on: int = 0) -> RowTimes:
    """Make a month of trips that take half as long again as predicted."""
    trips = random_trips(n, seed)
    pickup = trips.pickup_at + np.timedelta64(days_on, "D")
    predicted = trips.trip_minutes / 1.5
    taken = (trips.trip_minutes * 60e6).astype("m8[us]")
    ended = EndedTrips(pickup, pickup + taken, trips.pickup_zone, trips.dropoff_zone, predicted)
    return RowTimes(ended, np.ones(n, bool))


def make_feed(mode: str = "feed", delay: float = 15, state: LiveState | None = None) -> LiveFeed:
    new = live.new_state("green", "abc", np.datetime64(0, "m"), None)
    return LiveFeed(FeedSettings(mode, delay), state, new)


def head(rows: RowTimes, until: np.datetime64) -> RowTimes:
    """Return the rows that a feed holds at a given time."""
    there = rows.trips.dropoff_at < until
    return RowTimes(rows.trips.take(there), rows.counts[there])


def test_a_months_parts_come_to_what_the_month_does() -> None:
    rows = make_rows()
    parts = [
        RowTimes(rows.trips.take(part), rows.counts[part]) for part in np.split(np.arange(4_000), 8)
    ]
    one, other = make_feed(), make_feed()
    assert np.array_equal(one.follow(JANUARY, [rows]), other.follow(JANUARY, parts))


def test_a_month_that_grows_is_counted_once() -> None:
    rows = make_rows()
    state = None
    for day in (12, 12, 20, 29):  # the same month several times, with more trips each time
        feed = make_feed(state=state)
        feed.follow(JANUARY, [head(rows, np.datetime64(f"2021-01-{day}"))])
        state = feed.final_state(JANUARY, now=NOW)
    once = make_feed()
    once.follow(JANUARY, [head(rows, np.datetime64("2021-01-29"))])
    wanted = once.final_state(JANUARY, now=NOW)
    assert state is not None
    assert state.clock == wanted.clock
    assert np.datetime64("2021-01-28T12:00") < state.clock <= np.datetime64("2021-01-29T00:00")
    for one, other in zip(state.sums, wanted.sums, strict=True):
        assert one == pytest.approx(other, rel=0.02)


def test_trips_that_end_after_their_month_are_heard_of_in_the_next() -> None:
    first, second = make_rows(), make_rows(seed=2, days_on=31)
    last = np.full(500, END - np.timedelta64(10, "m"))
    crossing = EndedTrips(
        last.astype("datetime64[us]"),
        (END + np.arange(500).astype("m8[s]")).astype("datetime64[us]"),
        *(np.full(500, 7, np.int32) for _ in range(2)),
        np.full(500, 20.0),
    )
    both = [first, RowTimes(crossing, np.ones(500, bool))]
    with_crossing, without = make_feed(delay=0), make_feed(delay=0)
    with_crossing.follow(JANUARY, both)
    without.follow(JANUARY, [first])
    one, other = (feed.follow(FEBRUARY, [second]) for feed in (with_crossing, without))
    early = second.trips.pickup_at < END + np.timedelta64(5, "m")
    assert np.array_equal(one[early], other[early])
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("mode", "delay"), [("feed", 0), ("feed", 15), ("feed", 1440), ("nightly", 0)]
)
def test_every_row_of_the_months_has_a_level_and_no_other_row(mode: str, delay: float) -> None:
    feed = make_feed(mode, delay)
    for month, days_on in ((JANUARY, 0), (FEBRUARY, 31)):
        rows = make_rows(seed=days_on, days_on=days_on)
        strange = rows.trips._replace(pickup_at=rows.trips.pickup_at + np.timedelta64(400, "D"))
        factor = feed.follow(month, [rows, RowTimes(strange, np.zeros(4_000, bool))])
        assert np.isfinite(factor[:4_000]).all()
        assert np.isnan(factor[4_000:]).all()
    assert factor[:4_000].mean() > 1.2


def test_a_row_that_cannot_be_judged_has_no_level() -> None:
    rows = make_rows(10)
    rows.trips.predicted[3] = np.nan
    rows.trips.pickup_at[4] = np.datetime64("NaT")
    factor = make_feed().follow(JANUARY, [rows])
    assert np.isnan(factor).nonzero()[0].tolist() == [3, 4]


def test_a_feed_that_stopped_for_days_is_gone_on_with() -> None:
    rows = make_rows()
    day = rows.trips.pickup_at.astype("datetime64[D]")
    gap = (day > np.datetime64("2021-01-10")) & (day < np.datetime64("2021-01-20"))
    told = RowTimes(rows.trips, rows.counts & ~gap)
    factor = make_feed().follow(JANUARY, [told])
    at = [factor[day == np.datetime64(f"2021-01-{d}")].mean() for d in (10, 12, 19, 22)]
    assert at[0] > at[1] > at[2] > 1
    assert at[3] > at[2]


def test_a_month_without_a_trip_that_ended_leaves_the_state_as_it_was() -> None:
    feed = make_feed()
    feed.follow(JANUARY, [make_rows()])
    state = feed.final_state(JANUARY, now=NOW)
    rows = make_rows(days_on=31)
    silent = make_feed(state=state)
    silent.follow(FEBRUARY, [RowTimes(rows.trips, np.zeros(4_000, bool))])
    assert silent.final_state(FEBRUARY, now=NOW) is state


def test_a_trip_that_is_still_to_end_does_not_stop_the_clock(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows, now = make_rows(), np.datetime64("2021-01-20T12:00")
    told = head(rows, now)
    wrong = rows.trips.take(rows.trips.dropoff_at > np.datetime64("2021-01-25"))
    one, other = make_feed(), make_feed()
    one.follow(JANUARY, [told, RowTimes(wrong, np.ones(len(wrong.predicted), bool))])
    other.follow(JANUARY, [told])
    assert live_file.write_state(one.final_state(JANUARY, now=now)) == live_file.write_state(
        other.final_state(JANUARY, now=now)
    )
    assert capsys.readouterr().out.splitlines() == [
        "2021-01: not counted for live_state, as they end after now, 2021-01-20T12:00 in New York, "
        f"by a wrong clock: trips {len(wrong.predicted)}"
    ]
