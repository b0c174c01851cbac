"""The RMSE estimated for trips before their drop-offs are known, and its interval."""

from dataclasses import replace

import numpy as np
import pytest

from taxi.expected_loss import estimate_rmse, measure_losses, measure_part_variation
from taxi.leaves import grow_leaves
from taxi.schema import Trips
from taxi.scores import rmse
from taxi.spread import Calibration, Spread, fit_spread, restore_spread
from tests.conftest import random_trips

FAR = 3.0  # miles


def ask(trips: Trips, seed: int) -> tuple[np.ndarray, Trips]:
    """Predict trips with errors of 2 minutes on near ones and of 6 on far or unknown ones."""
    near = np.nan_to_num(trips.distance_miles, nan=9) < FAR
    error = np.random.default_rng(seed).normal(0, np.where(near, 2.0, 6.0))
    predicted = np.where(near, 10.0, 30.0)
    return predicted, replace(trips, trip_minutes=predicted - error)


def make_trips_of(n: int, seed: int) -> Trips:
    trips = random_trips(n, seed)
    miles = np.random.default_rng(seed).uniform(0.5, 6, n)
    return replace(trips, distance_miles=miles)


def fit(seed: int = 1, n: int = 6_000) -> Spread:
    predicted, trips = ask(make_trips_of(n, seed), seed)
    unplanned, _ = ask(trips.without_distance(), seed)
    spread = fit_spread(Calibration(trips, predicted, unplanned))
    assert spread is not None
    return spread


def told(spread: Spread, trips: Trips, predicted: np.ndarray) -> tuple[float, float, float]:
    losses = spread.losses()
    assert losses is not None
    counts = np.bincount(spread.find_leaves(trips, predicted), minlength=len(losses))
    found = estimate_rmse(counts, losses)
    assert found is not None
    return found


def test_of_the_trips_that_were_measured_it_tells_the_rmse_that_they_have() -> None:
    predicted, trips = ask(make_trips_of(6_000, 1), 1)
    value, low, high = told(fit(), trips, predicted)
    assert value == pytest.approx(rmse(predicted - trips.trip_minutes), abs=1e-4)
    assert low < value < high


@pytest.mark.parametrize("share_far", [0.1, 0.5, 0.9])
def test_it_follows_the_trips_that_are_asked_about(share_far: float) -> None:
    trips = make_trips_of(20_000, 2)
    far = trips.distance_miles >= FAR
    weight = np.where(far, share_far / far.sum(), (1 - share_far) / (~far).sum())
    rows = np.random.default_rng(3).choice(len(trips), 6_000, p=weight)
    predicted, asked = ask(trips.take(rows), 4)
    value, *_ = told(fit(), asked, predicted)
    assert value == pytest.approx(rmse(predicted - asked.trip_minutes), rel=0.04)


def test_it_knows_what_a_missing_distance_costs() -> None:
    _, trips = ask(make_trips_of(4_000, 5), 5)
    unplanned, _ = ask(trips.without_distance(), 5)
    value, *_ = told(fit(), trips.without_distance(), unplanned)
    assert value == pytest.approx(rmse(unplanned - trips.trip_minutes), rel=0.05)


def test_its_interval_holds_the_rmse_about_as_often_as_it_says() -> None:
    held = []
    for seed in range(40):
        spread = fit(seed, 1_500)
        for month in (100 + seed, 200 + seed):
            predicted, trips = ask(make_trips_of(800, month), month)
            _, low, high = told(spread, trips, predicted)
            held.append(low <= rmse(predicted - trips.trip_minutes) <= high)
    assert 0.88 <= np.mean(held) <= 1


def test_weeks_that_differ_make_it_less_sure() -> None:
    square, ones = np.ones(400), np.ones(400)
    assert measure_part_variation(square, ones, ones) == 0
    moved = square * np.repeat([0.5, 1.5, 0.5, 1.5], 100)
    assert measure_part_variation(moved, ones, ones) == pytest.approx(0.57, abs=0.01)
    counts, losses = np.array([100]), np.array([[1_000, 25.0, 900.0, 0.0]])
    sure = estimate_rmse(counts, losses)
    losses[0, 3] = 0.5
    unsure = estimate_rmse(counts, losses)
    assert sure is not None
    assert unsure is not None
    assert unsure.value == sure.value == 5
    assert unsure.low < sure.low < 5 < sure.high < unsure.high


def test_of_a_leaf_its_squared_errors_their_variance_and_their_moves_are_kept() -> None:
    error = np.array([1, -1, 3, -3, 1, -1, 3, -3])  # two a week, and weeks differ
    values = np.zeros((8, 1))
    (losses,) = measure_losses(grow_leaves(values, values, min_rows=8), values, error)
    variance = 8 * 4**2 / 7
    ratios, chance = np.array([0.2, 1.8, 0.2, 1.8]), 2 * variance / (2 * 5) ** 2
    moves = np.sqrt(ratios.var(ddof=1) - chance)
    assert losses == pytest.approx([8, 5, variance, moves], abs=1e-4)


def test_the_interval_adds_the_months_chance_that_of_valid_and_what_parts_differ_by() -> None:
    counts, losses = np.array([30, 70]), np.array([[100, 16, 400, 0.1], [400, 36, 900, 0.1]])
    squared = 0.3 * 16 + 0.7 * 36
    of_the_month = (0.3 * 400 + 0.7 * 900) / 100
    of_valid = 0.3**2 * 400 / 100 + 0.7**2 * 900 / 400
    off = 1.96 * np.sqrt(of_the_month + of_valid + (0.1 * squared) ** 2)
    ends = [squared, squared - off, squared + off]
    assert estimate_rmse(counts, losses) == pytest.approx(np.sqrt(ends))


def test_of_no_trips_nothing_is_told() -> None:
    assert estimate_rmse(np.zeros(2, int), np.ones((2, 4))) is None


def test_losses_are_kept_and_a_spread_of_an_older_version_has_none() -> None:
    spread = fit()
    state = spread.state()
    losses, again = spread.losses(), restore_spread(state).losses()
    assert losses is not None
    assert again is not None
    assert np.array_equal(losses, again)
    older = {name: {k: v for k, v in state[name].items() if k != "losses"} for name in state}
    assert restore_spread(older).losses() is None
    assert restore_spread(older).state() == older
