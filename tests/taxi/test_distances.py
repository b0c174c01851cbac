import numpy as np
import pytest

from taxi import TripError, distances
from taxi.distances import DISTANCE_KINDS, METERED, MISSING, PLANNED_10, PLANNED_20, PLANNING_LOG_SD
from tests.conftest import make_trips, random_trips


def log_ratio(kind: str, **options: int) -> np.ndarray:
    """Return log(planned / metered distance) of many trips."""
    trips = make_trips(20_000, distance_miles=2.5)
    return np.log(distances.apply_distance_kind(trips, kind, **options).distance_miles / 2.5)


@pytest.mark.parametrize("kind", PLANNING_LOG_SD)
def test_a_planned_distance_is_off_by_what_its_kind_says_and_on_the_whole_right(kind: str) -> None:
    noise = log_ratio(kind)
    assert noise.std() == pytest.approx(PLANNING_LOG_SD[kind], rel=0.03)
    assert np.median(noise) == pytest.approx(0, abs=0.005)
    assert (np.abs(noise) < PLANNING_LOG_SD[kind]).mean() == pytest.approx(0.683, abs=0.02)


def test_the_noise_is_the_seeds_and_the_kinds_differ_by_its_size_alone() -> None:
    assert np.array_equal(log_ratio(PLANNED_10), log_ratio(PLANNED_10))
    assert not np.allclose(log_ratio(PLANNED_10), log_ratio(PLANNED_10, seed=7))
    assert log_ratio(PLANNED_20) == pytest.approx(2 * log_ratio(PLANNED_10), abs=1e-7)


def test_the_noise_of_a_trip_does_not_depend_on_how_many_follow() -> None:
    trips = random_trips(500, seed=1)
    whole = distances.apply_distance_kind(trips, PLANNED_10).distance_miles
    part = distances.apply_distance_kind(trips.take(np.arange(100)), PLANNED_10).distance_miles
    assert np.array_equal(whole[:100], part, equal_nan=True)


def test_trips_are_measured_as_they_are_with_metered_distance() -> None:
    trips = random_trips(500, seed=1)
    assert distances.apply_distance_kind(trips, METERED) is trips


@pytest.mark.parametrize("kind", DISTANCE_KINDS)
def test_nothing_but_the_distance_differs_and_the_callers_trips_stay(kind: str) -> None:
    trips = random_trips(500, seed=1)
    before = trips.distance_miles.copy()
    known = distances.apply_distance_kind(trips, kind)
    assert np.array_equal(trips.distance_miles, before, equal_nan=True)
    assert known.pickup_at is trips.pickup_at
    assert known.trip_minutes is trips.trip_minutes


def test_no_distance_is_known_where_it_is_missing() -> None:
    assert np.isnan(
        distances.apply_distance_kind(random_trips(500, seed=1), MISSING).distance_miles
    ).all()


@pytest.mark.parametrize("miles", [0.0, -1.0, 178_980.0, np.nan])
def test_nobody_knows_what_was_planned_where_the_meter_shows_nonsense(miles: float) -> None:
    trips = make_trips(3, distance_miles=[2.5, miles, 2.5])
    known = distances.apply_distance_kind(trips, PLANNED_20).distance_miles
    assert np.isnan(known).tolist() == [False, True, False]
    assert distances.n_without_distance(trips) == 1


def test_a_sample_is_the_same_each_time_and_keeps_the_order() -> None:
    trips = make_trips(500, trip_minutes=np.arange(500))
    assert distances.sample_trips(trips, 500) is trips
    first, second = (distances.sample_trips(trips, 60).trip_minutes for _ in range(2))
    assert np.array_equal(first, second)
    assert len(set(first)) == 60
    assert (np.diff(first) > 0).all()
    assert np.array_equal(distances.sample_rows(500, 60), first)
    assert np.array_equal(distances.sample_rows(500, 500), np.arange(500))


def test_a_kind_or_a_judge_by_that_does_not_exist() -> None:
    with pytest.raises(TripError, match=r"Unknown distance 'guessed'. Choose from \['metered'"):
        distances.apply_distance_kind(make_trips(), "guessed")
    with pytest.raises(TripError, match=r"Unknown judge_by 'plan'. .*'missing', 'planned'"):
        distances.select_distance_kind("plan")
