"""On which slices a candidate is significantly worse, corrected for the number of slices."""

import re
from math import inf

import numpy as np
import pytest

from taxi import gate, slices
from taxi.bootstrap import Interval
from taxi.gate import Champion, GateDecision, GateThresholds, Overrides, Provenance
from taxi.schema import Trips
from taxi.simulation import simulated_zones
from taxi.slices import PairedErrors, SliceLoss, judge_slices, pair_errors, pair_slices, slice_rows
from tests.conftest import make_trips, random_trips, simulated_trips

CITY = simulated_zones(42)


def at_airports(trips: Trips) -> np.ndarray:
    ends = (trips.pickup_zone, trips.dropoff_zone)
    return np.any([np.isin(zone, slices.AIRPORTS) for zone in ends], axis=0)


def predictions(trips: Trips, *, airports: float, elsewhere: float) -> tuple[np.ndarray, ...]:
    """Predict as a candidate with the champion's errors times a factor, and as the champion."""
    error = np.random.default_rng(1).normal(0, 5, len(trips))
    factor = np.where(at_airports(trips), airports, elsewhere)
    return trips.trip_minutes + factor * error, trips.trip_minutes + error


def judge(
    trips: Trips, candidate: np.ndarray, champion: np.ndarray, **allowed: bool
) -> GateDecision:
    """Have the gate judge a candidate that is better overall."""
    parts = pair_slices(trips, candidate, champion, CITY)
    real = Provenance(False, False, frozenset())
    better = Interval(0.05, 0.02, 0.08)
    return gate.judge(
        {"rmse": 5.0, "r2": 0.8},
        GateThresholds(
            max_rmse=7.0,
            min_r2=0.5,
            min_improvement=0.01,
            max_coverage_gap=0.08,
            max_slice_loss=0.05,
        ),
        distance="metered",
        champion=Champion(better, real, parts),
        provenance=real,
        test_months=frozenset({"2021-03"}),
        overrides=Overrides(**allowed),
        rolled_back=None,
    )


def test_a_candidate_better_overall_and_8_percent_worse_at_airports_is_refused() -> None:
    trips = simulated_trips("2021-03")
    assert 0.02 < at_airports(trips).mean() < 0.1
    candidate, champion = predictions(trips, airports=1.08, elsewhere=0.95)
    decision = judge(trips, candidate, champion)
    assert not decision.promoted
    (reason,) = decision.reasons
    asked = "slices whose RMSE is significantly above the champion's with metered distance"
    assert reason.startswith(f"{asked} is airports by 8.0")
    assert reason.endswith("wanted none by more than 5.0 %, or allow_slice_loss=true")
    (failed,) = (check for check in decision.slices if not check.passed)
    assert failed.check == "RMSE above the champion's: airports"
    assert failed.found.startswith(f"8.0 % on {at_airports(trips).sum()} trips, at least ")
    assert judge(trips, candidate, champion, slice_loss=True).promoted


def test_a_refusal_names_the_three_slices_that_lose_most_and_counts_the_others() -> None:
    trips = simulated_trips("2021-03")
    candidate, champion = predictions(trips, airports=1.3, elsewhere=1.1)
    (reason,) = (text for text in judge(trips, candidate, champion).reasons if "slices" in text)
    named, more = re.match(r".* distance is (.*), (\d+) more of \d+, wanted", reason).groups()
    losses = [float(share) for share in re.findall(r" by ([\d.]+) %", named)]
    assert len(losses) == 3
    assert losses == sorted(losses, reverse=True)
    assert named.startswith("airports by 30.0 %")
    assert int(more) > 5


def test_a_loss_that_may_be_luck_or_is_small_refuses_nobody() -> None:
    trips = simulated_trips("2021-03")
    assert judge(trips, *predictions(trips, airports=1.04, elsewhere=0.95)).promoted
    rng = np.random.default_rng(2)
    one, two = (rng.normal(0, spread, 40) for spread in (7, 5))
    (loss,) = judge_slices([pair_errors("few", np.zeros(40), one, two)], 0.05)
    assert not loss.is_significant
    assert loss.at_least < 0.05 < loss.loss


def test_slices_are_hours_distances_airports_and_boroughs_but_no_small_ones() -> None:
    trips = simulated_trips("2021-03")
    names = [part.name for part in pair_slices(trips, *[trips.trip_minutes + 1] * 2, CITY)]
    assert names[:5] == [f"{band} h" for band in ("0 to 6", "6 to 10", "10 to 16")] + [
        "16 to 20 h",
        "20 to 24 h",
    ]
    assert {"1 to 2 miles", "no distance", "airports", "from Queens"} < {*names}
    shares = {name: rows.mean() for name, rows in slice_rows(trips, CITY)}
    assert {name for name, share in shares.items() if share > 0.02} == {*names}
    assert len(names) < len(shares)


def test_without_a_city_parts_of_a_learned_map_stand_for_boroughs() -> None:
    trips = random_trips(3_000, seed=1)
    parts = {name: rows.mean() for name, rows in slice_rows(trips, None) if "map" in name}
    assert list(parts) == [f"from map quarter {number}" for number in (1, 2, 3, 4)]
    assert all(0.2 < share < 0.3 for share in parts.values())


def test_a_slice_with_no_trips_is_no_reason_and_no_crash() -> None:
    trips = make_trips(3, pickup_at="2021-03-15T12:00", trip_minutes=[10.0, 12.0, 14.0])
    found = dict(slice_rows(trips, CITY))
    assert not found["airports"].any()
    assert not found["0 to 6 h"].any()
    parts = pair_slices(trips, trips.trip_minutes + 9, np.array([11.0, 14.0, 17.0]), CITY)
    assert [part.name for part in parts] == ["10 to 16 h", "2 to 4 miles", parts[-1].name]
    assert judge_slices([], 0.05) == []


def make_part(t: float, name: str = "x") -> PairedErrors:
    """Make a slice of 10,001 trips whose loss is `t` standard errors away from 0."""
    return PairedErrors(name, 10_001, 100.0 + t, 100.0, (10_001.0, 0.0), 0.0)


@pytest.mark.parametrize(
    ("ts", "n_worse"),
    [
        ([1.7], 1),  # a single slice, tested at 5 %
        ([1.7, 0.0], 0),  # two slices: 2.5 % each
        ([2.0, 0.0], 1),
        ([2.0, 1.7], 2),  # once the first is found, the one left is tested at 5 %
        ([2.4, 1.7, 1.7], 1),
        ([0.0, 0.0], 0),
    ],
)
def test_many_looks_are_paid_for(ts: list[float], n_worse: int) -> None:
    found = judge_slices([make_part(t) for t in ts], 0.0)
    assert [loss.is_significant for loss in found] == [True] * n_worse + [False] * (
        len(ts) - n_worse
    )
    assert [loss.at_least >= 0 for loss in found] == [loss.is_significant for loss in found]


def test_what_a_slice_loses_at_least_is_the_largest_loss_that_it_has_significantly() -> None:
    minutes, error = np.zeros(4_000), np.random.default_rng(3).normal(0, 5, 4_000)
    part = pair_errors("x", minutes, 1.1 * error + 0.3, error)
    (loss,) = judge_slices([part], 0.02)
    assert loss.is_significant
    assert 0.02 < loss.at_least < loss.loss
    assert slices._p_value(part, loss.at_least) == pytest.approx(slices.ALPHA, rel=1e-6)


def test_equal_models_are_hardly_ever_called_worse() -> None:
    rng, n_refused = np.random.default_rng(3), 0
    for _ in range(400):
        hard = rng.normal(0, 5, (12, 100)) * rng.lognormal(0, 0.5, (12, 100))
        one, two = (hard + rng.normal(0, 2, hard.shape) for _ in range(2))
        zero = np.zeros(100)
        parts = [pair_errors("x", zero, a, b) for a, b in zip(one, two, strict=True)]
        n_refused += any(loss.is_significant for loss in judge_slices(parts, 0.0))
    assert 0 < n_refused / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize(
    ("candidate", "champion", "loss"),
    [
        ([0, 0, 0], [0, 0, 0], SliceLoss("x", 3, 0.0, -1.0, False)),
        ([0, 0, 0], [1, 2, 3], SliceLoss("x", 3, -1.0, -1.0, False)),
        ([2, 2, 2], [0, 0, 0], SliceLoss("x", 3, inf, 0.05, True)),
        ([2, 2, 2], [1, 1, 1], SliceLoss("x", 3, 1.0, 1.0, True)),
    ],
)
def test_models_without_error_are_compared_too(
    candidate: list[float], champion: list[float], loss: SliceLoss
) -> None:
    part = pair_errors("x", np.zeros(3), np.array(candidate, float), np.array(champion, float))
    assert judge_slices([part], 0.05) == [loss]
