import numpy as np
import pyarrow as pa
import pytest

from taxi.cleaning import REASONS, clean
from taxi.profile import EDGES, HAS_DISTANCE, HISTOGRAM_LABELS, Profile, draw_profile
from taxi.schema import TRIPS
from tests.conftest import make_raw


def make_batch(**columns: object) -> pa.RecordBatch:
    return clean(make_raw(**columns), taxi="green", month="2021-01").trips


def profile_of(*batches: pa.RecordBatch) -> Profile:
    profile = Profile()
    for batch in batches:
        profile.add(batch)
    return profile


def test_adding_batch_by_batch_counts_as_adding_at_once() -> None:
    batch = make_batch(n=5, distance_miles=[0.1, 3.0, None, 0.0, 70.0])
    whole, parts = profile_of(batch), profile_of(batch.slice(0, 2), batch.slice(2))
    assert whole.n_trips == parts.n_trips == 5
    for name in EDGES:
        assert np.array_equal(whole.counts[name], parts.counts[name]), name
        assert whole.counts[name].sum() > 0


@pytest.mark.parametrize(("name", "value"), [("trip_minutes", 12), ("hour", 17), ("weekday", 4)])
def test_a_trip_is_counted_in_its_own_bin(name: str, value: float) -> None:
    profile = profile_of(make_batch(n=4))  # Friday 2021-01-15, 17:45, 12 minutes
    place = np.searchsorted(EDGES[name], value, side="right") - 1
    assert profile.counts[name][place] == 4
    assert profile.counts[name].sum() == 4


@pytest.mark.parametrize("minutes", [1, 60])
def test_both_ends_of_the_minutes_are_counted(minutes: int) -> None:
    end = np.datetime64("2021-01-15T17:45") + np.timedelta64(minutes, "m")
    assert profile_of(make_batch(n=2, dropoff_at=[end, end])).counts["trip_minutes"].sum() == 2


@pytest.mark.parametrize(("miles", "place"), [(-5.0, 0), (0.0, 1), (60.0, -1), (178_980.0, -1)])
def test_distances_beyond_the_ends_count_in_the_end_bins(miles: float, place: int) -> None:
    profile = profile_of(make_batch(n=1, distance_miles=miles))
    assert profile.counts["distance_miles"][place] == 1


def test_a_missing_distance_is_in_no_bin() -> None:
    profile = profile_of(make_batch(n=2, distance_miles=[None, 1.0]))
    assert profile.counts["distance_miles"].sum() == 1
    assert profile.shares("distance_miles").sum() == 1


@pytest.mark.parametrize("miles", [None, 0.0, -5.0, 60.1, float("nan")])
def test_a_trip_has_a_distance_only_where_it_is_a_clean_one(miles: float | None) -> None:
    profile = profile_of(make_batch(n=3, distance_miles=[miles, 1.0, 60.0]))
    assert profile.counts[HAS_DISTANCE].tolist() == [1, 2]


def test_shares_of_nothing_are_zero() -> None:
    empty = pa.RecordBatch.from_pylist([], TRIPS)
    for name in EDGES:
        assert profile_of(empty).shares(name).sum() == 0


def test_the_picture_shows_every_split_and_every_reason() -> None:
    profiles = {"train": profile_of(make_batch()), "valid": profile_of(make_batch(n=1))}
    counts = {reason: n for n, reason in enumerate(REASONS, start=1)}
    figure = draw_profile(profiles, {"2021-01": counts, "2021-02": counts})
    shown = [
        [text.get_text() for text in axis.get_legend().texts]
        for axis in figure.axes
        if axis.get_legend()
    ]
    n_each = [f"train, {profiles['train'].n_trips:,} trips", "valid, 1 trips"]
    assert shown == [n_each] * len(EDGES) + [[f"{reason}: {2 * n}" for reason, n in counts.items()]]
    assert "Mon" in [text.get_text() for text in figure.axes[3].get_xticklabels()]
    dropped = figure.axes[len(EDGES)]
    assert sum(bar.get_width() for bar in dropped.patches) == 2 * sum(counts.values())
    assert dropped.get_title("left") == f"Dropped most often: {REASONS[-1]}"


def test_each_histogram_says_where_most_trips_of_the_first_split_are() -> None:
    times = {"pickup_at": "2021-01-15 17:45:00", "dropoff_at": "2021-01-15 17:57:30"}
    known, without_distance = (make_batch(**times, distance_miles=miles) for miles in (2.7, None))
    for first, where in (
        (known, "Most train trips: 2.5 to 3 miles"),
        (without_distance, "No train trip has"),
    ):
        profiles = {"train": profile_of(first), "valid": profile_of(known)}
        minutes, miles, hour, weekday, *_ = (
            axis.get_title("left")
            for axis in draw_profile(profiles, {"2021-01": {"zone missing": 0}}).axes
        )
        assert minutes == "Most train trips: 12 to 13 min"
        assert miles.startswith(where)
        assert (hour, weekday) == ("Most train trips: 17:00", "Most train trips: Friday")


def test_a_distance_that_no_trip_has_is_not_drawn() -> None:
    unknown = make_batch(distance_miles=None)
    figure = draw_profile({"train": profile_of(unknown)}, {"2021-01": dict.fromkeys(REASONS, 2)})
    labels = [axis.get_xlabel() for axis in figure.axes if axis.axison]
    known = [HISTOGRAM_LABELS[name] for name in EDGES if name != "distance_miles"]
    assert labels == [*known, "rows dropped"]
