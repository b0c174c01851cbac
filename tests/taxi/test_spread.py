import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from taxi import cleaning, schema
from taxi.coverage import coverage_by_group
from taxi.schema import Trips
from taxi.spread import (
    LEAF_ROWS,
    LEVELS,
    MIN_ROWS,
    SHORTEST_MINUTES,
    Calibration,
    Spread,
    error_features,
    fit_spread,
    restore_spread,
)
from tests.conftest import make_trips, random_trips, real_month

N = 20_000
# not 2021-02, whose snow no January had: bench/coverage.py measures its effect
MONTHS = [("2020-11", "2020-12"), ("2022-01", "2022-02"), ("2023-02", "2023-03")]
ASKED = (0.001, 0.025, 0.1, 0.5, 0.9, 0.975, 0.999)


def skewed(n: int, seed: int, **columns: object) -> tuple[Trips, np.ndarray]:
    """Make trips whose minutes scatter in proportion to the prediction, skewed to the long side."""
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(4, 40, n)
    noise = rng.gamma(2.0, 1.0, n) - 2.0  # with mean 0
    at = np.datetime64("2021-01-01") + rng.integers(0, 28 * 1440, n).astype("m8[m]")
    minutes = predicted * (1 + 0.15 * noise)
    trips = make_trips(n, pickup_at=at, trip_minutes=minutes, distance_miles=predicted / 5)
    return replace(trips, **columns), predicted


def without_distance(trips: Trips) -> Trips:
    return replace(trips, distance_miles=np.full(len(trips), np.nan))


def fitted(n: int = N, seed: int = 1) -> Spread:
    trips, predicted = skewed(n, seed)
    spread = fit_spread(Calibration(trips, predicted, predicted + 1.0))
    assert spread is not None
    return spread


@pytest.fixture(scope="module")
def spread() -> Spread:
    return fitted()


# --- quantiles are what they say


def test_as_many_new_trips_are_shorter_as_the_level_says_short_or_long(spread: Spread) -> None:
    trips, predicted = skewed(N, seed=2)
    found = spread.quantiles(trips, predicted, (0.1, 0.5, 0.9))
    for rows in np.array_split(np.argsort(predicted), 5):  # sd of a share among 4,000: 0.5 %
        shorter = (trips.trip_minutes[rows, None] <= found[rows]).mean(axis=0)
        assert shorter == pytest.approx([0.1, 0.5, 0.9], abs=0.025)


def test_half_of_the_trips_are_shorter_than_p50_which_is_not_the_mean(spread: Spread) -> None:
    trips, predicted = skewed(N, seed=2)
    p50 = spread.quantiles(trips, predicted, [0.5])[:, 0]
    assert (p50 < predicted).mean() > 0.95  # the median of a gamma is below its mean
    assert p50.mean() == pytest.approx(predicted.mean() * (1 - 0.15 * 0.3217), rel=0.01)


def test_errors_are_told_apart_by_length_pace_time_weekday_and_whether_a_zone_is_left() -> None:
    at = ["2021-01-15T17:45:30", "2021-01-17T23:59:59", "2021-01-18T00:00"]  # Friday to Monday
    trips = make_trips(3, pickup_at=at, dropoff_zone=[75, 74, 75], distance_miles=[2.5, 0, 2.5])
    wanted = [
        [10.0, 2.5, 0.25, 17 * 60 + 45, 4, 0],
        [20.0, np.nan, np.nan, 23 * 60 + 59, 6, 1],
        [0.1, 2.5, 5.0, 0, 0, 0],  # of half a minute at least
    ]
    found = error_features(trips, np.array([row[0] for row in wanted]))
    assert found == pytest.approx(np.array(wanted), nan_ok=True)


def test_rows_without_distance_are_answered_from_errors_without_it(spread: Spread) -> None:
    trips, predicted = skewed(N, seed=2)
    found = spread.quantiles(without_distance(trips), predicted + 1.0, [0.1, 0.9])
    low, high = found.T
    assert coverage_by_group(trips, low, high)[0].coverage == pytest.approx(0.8, abs=0.015)
    # a model that predicts a minute too much, with the spread of one that does not
    other = spread.quantiles(trips, predicted + 1.0, [0.5])[:, 0]
    here = spread.quantiles(without_distance(trips), predicted + 1.0, [0.5])[:, 0]
    assert np.mean(other - here) == pytest.approx(1.0, abs=0.2)


def test_trips_without_distance_are_answered_as_well_where_each_valid_trip_has_one() -> None:
    trips, close = skewed(N, seed=1)
    rough = np.full(N, close.mean()) + np.random.default_rng(3).normal(0, 1, N)
    spread = fit_spread(Calibration(trips, close, rough))
    assert spread is not None
    low, high = spread.quantiles(without_distance(trips), rough, [0.1, 0.9]).T
    assert coverage_by_group(trips, low, high)[0].coverage == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("months", MONTHS)
def test_intervals_hold_next_month_even_of_a_poor_model(months: tuple[str, str]) -> None:
    valid, test = map(clean_month, months)
    of_valid, of_test = 5.0 + 3.5 * miles(valid), 5.0 + 3.5 * miles(test)
    spread = fit_spread(Calibration(valid, of_valid, np.full(len(valid), 15.0)))
    assert spread is not None
    overall, *groups = coverage_by_group(test, *spread.quantiles(test, of_test, (0.1, 0.9)).T)
    assert overall.coverage == pytest.approx(0.8, abs=0.03)
    by_distance = [group for group in groups if group.kind == "distance"]
    large = [group for group in by_distance if group.n_trips > 0.05 * len(test)]
    assert len(large) >= 4
    assert [group for group in large if abs(group.coverage - 0.8) > 0.04] == []


def clean_month(month: str) -> Trips:
    batches = real_month(month).to_batches()
    kept = [cleaning.clean(batch, taxi="green", month=month).trips for batch in batches]
    return schema.to_trips(pa.Table.from_batches(kept))


def miles(trips: Trips) -> np.ndarray:
    return np.nan_to_num(schema.clean_miles(trips), nan=15 / 3.5)


# --- what always holds


@pytest.mark.parametrize("seed", range(3))
def test_a_higher_level_is_never_a_shorter_trip_and_none_is_shorter_than_the_least(
    seed: int, spread: Spread
) -> None:
    trips = random_trips(500, seed=seed)
    predicted = np.random.default_rng(seed).uniform(-5, 80, 500)  # an odd model's
    levels = np.sort(np.random.default_rng(seed).uniform(0, 1, 99))
    found = spread.quantiles(trips, predicted, list(levels))
    assert (np.diff(found, axis=1) >= 0).all()
    assert found.min() == SHORTEST_MINUTES
    assert np.isfinite(found).all()


def test_the_risk_of_more_than_a_quantile_is_what_the_level_leaves(spread: Spread) -> None:
    trips, predicted = skewed(200, seed=3)
    for kind in (trips, without_distance(trips)):
        found = spread.quantiles(kind, predicted, ASKED)
        for row in range(0, 200, 20):
            one = kind.take(np.array([row]))
            risks = [spread.longer_than(one, predicted[[row]], m)[0] for m in found[row]]
            assert risks == pytest.approx([1 - level for level in ASKED], abs=1e-3)


def test_the_risk_falls_from_certain_to_none(spread: Spread) -> None:
    trips, predicted = skewed(200, seed=3)
    risks = [spread.longer_than(trips, predicted, m) for m in (0.0, 0.4, 5, 15, 30, 60, 1e9)]
    assert (risks[0] == 1).all() and (risks[1] == 1).all() and (risks[-1] == 0).all()
    assert (np.diff(risks, axis=0) <= 0).all()
    found, measured = risks[4].mean(), (trips.trip_minutes > 30).mean()
    assert found == pytest.approx(measured, abs=0.05)


def test_a_row_is_answered_alone_as_among_others(spread: Spread) -> None:
    trips, predicted = skewed(60, seed=4)
    trips.distance_miles[::3] = np.nan
    together = spread.quantiles(trips, predicted, ASKED)
    for row in range(60):
        one = trips.take(np.array([row]))
        assert spread.quantiles(one, predicted[[row]], ASKED).tobytes() == together[row].tobytes()


def test_a_spread_survives_json(spread: Spread) -> None:
    trips, predicted = skewed(300, seed=4)
    again = restore_spread(json.loads(json.dumps(spread.state())))
    for asked in (trips, without_distance(trips)):
        found = again.quantiles(asked, predicted, ASKED)
        assert np.array_equal(found, spread.quantiles(asked, predicted, ASKED))


# --- few trips


@pytest.mark.parametrize("n", [0, 1, MIN_ROWS - 1])
def test_a_handful_of_trips_says_nothing(n: int) -> None:
    trips, predicted = skewed(n, seed=1)
    assert fit_spread(Calibration(trips, predicted, predicted)) is None


@pytest.mark.parametrize("n", [MIN_ROWS, LEAF_ROWS, 2 * LEAF_ROWS - 1])
def test_fewer_trips_than_two_leaves_need_are_one_group(n: int) -> None:
    spread = fitted(n)
    assert spread.planned.errors.shape == spread.unplanned.errors.shape == (1, len(LEVELS))
    trips, predicted = skewed(N, seed=2)
    low, high = spread.quantiles(trips, predicted, [0.1, 0.9]).T
    assert coverage_by_group(trips, low, high)[0].coverage == pytest.approx(0.8, abs=0.12)


def test_where_no_valid_trip_has_a_distance_one_that_has_is_answered_as_the_others() -> None:
    trips, predicted = skewed(N, seed=1)
    spread = fit_spread(Calibration(without_distance(trips), predicted, predicted))
    assert spread is not None
    assert spread.planned is spread.unplanned
    assert np.isfinite(spread.quantiles(trips, predicted, ASKED)).all()


@pytest.mark.parametrize("seen", [0.0, -1.0, 1000.0])
def test_trips_of_a_broken_meter_and_trips_without_a_plan_have_errors_of_their_own(
    seen: float,
) -> None:
    trips, predicted = skewed(N, seed=1)
    odd = np.arange(N) % 40 == 0
    trips.distance_miles[odd] = seen
    trips.trip_minutes[odd] = predicted[odd] * 3
    spread = fit_spread(Calibration(trips, predicted, predicted))
    assert spread is not None
    p50 = spread.quantiles(trips, predicted, [0.5])[odd, 0]
    assert np.median(p50 / predicted[odd]) == pytest.approx(3, rel=0.1)
    # without planned distances such trips are only one in forty
    p90 = spread.quantiles(without_distance(trips), predicted, [0.9])[:, 0]
    assert (trips.trip_minutes <= p90).mean() == pytest.approx(0.9, abs=0.01)


def test_a_few_trips_of_a_broken_meter_count_as_trips_without_a_plan() -> None:
    trips, predicted = skewed(N, seed=1)
    trips.distance_miles[:199] = 0.0
    spread = fit_spread(Calibration(trips, predicted, predicted))
    assert spread is not None
    assert spread.implausible is spread.unplanned
