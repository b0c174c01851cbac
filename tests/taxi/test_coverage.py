import numpy as np
import pytest

from taxi.coverage import (
    ALL_TRIPS,
    RELIABILITY_LEVELS,
    coverage_by_group,
    draw_reliability,
    measure_reliability,
)
from taxi.groups import NO_DISTANCE
from taxi.spread import Calibration
from tests.conftest import make_trips
from tests.taxi.test_spread import skewed


def test_a_trip_counts_as_held_where_it_is_within_both_ends() -> None:
    trips = make_trips(5, trip_minutes=[5, 10, 15, 20, 25])
    (overall, *groups) = coverage_by_group(trips, np.full(5, 10.0), np.full(5, 20.0))
    assert overall == (ALL_TRIPS, ALL_TRIPS, 5, 0.6, 0.2, 0.2, 10.0)
    assert [group[2:] for group in groups] == [overall[2:]] * 2  # all trips are alike
    assert [(group.kind, group.group) for group in groups] == [
        ("hour", "17"),
        ("distance", "02.0..04.0 miles"),
    ]


def test_groups_are_those_of_hour_and_distance_and_the_unknown_is_one() -> None:
    at = ["2021-01-15T08:00", "2021-01-15T08:59", "2021-01-15T09:00", "2021-01-15T09:00"]
    trips = make_trips(4, pickup_at=at, distance_miles=[0.5, 0.0, np.nan, 99.0])
    low = np.array([10.0, 13.0, 13.0, 10.0])
    found = {(g.kind, g.group): g for g in coverage_by_group(trips, low, low + 5)}
    assert found["hour", "08"].coverage == found["hour", "09"].coverage == 0.5
    assert found["distance", "00.0..01.0 miles"].coverage == 1
    unknown = found["distance", NO_DISTANCE]
    assert (unknown.n_trips, unknown.coverage, unknown.below) == (
        3,
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    )


def test_quantiles_that_keep_their_promise_lie_on_the_diagonal() -> None:
    trips, predicted = skewed(20_000, seed=1)
    observed = measure_reliability(Calibration(trips, predicted, predicted))
    assert observed == pytest.approx(RELIABILITY_LEVELS, abs=0.02)


def test_a_later_half_that_is_unlike_the_earlier_shows() -> None:
    trips, predicted = skewed(20_000, seed=1)
    late = trips.pickup_at > np.median(trips.pickup_at.astype(int)).astype("M8[us]")
    trips.trip_minutes[late] += 4
    observed = measure_reliability(Calibration(trips, predicted, predicted))
    assert observed is not None
    assert (observed[:-1] < RELIABILITY_LEVELS[:-1] - 0.03).all()


@pytest.mark.parametrize("n", [0, 1, 38])
def test_of_a_handful_of_trips_no_reliability_is_said(n: int) -> None:
    trips, predicted = skewed(n, seed=1)
    assert measure_reliability(Calibration(trips, predicted, predicted)) is None


def test_the_picture_shows_what_came_out_against_what_was_promised() -> None:
    observed = RELIABILITY_LEVELS**2
    (axis,) = draw_reliability(observed).axes
    _diagonal, curve = axis.lines
    assert np.array_equal(curve.get_xdata(), 100 * RELIABILITY_LEVELS)
    assert np.array_equal(curve.get_ydata(), 100 * observed)
