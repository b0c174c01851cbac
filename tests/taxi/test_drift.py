import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom, chi2, norm

from taxi import drift
from taxi.drift import DriftReference, DriftThresholds, MonthScores
from taxi.profile import HAS_DISTANCE, Profile
from taxi.schema import TRIPS, Trips, clean_miles
from tests.conftest import random_trips, simulated_trips

LOOSE = DriftThresholds(0.25, max_unseen=0.05, max_rmse_rise=0.15, max_coverage_gap=0.08)


def profile_of(trips: Trips) -> Profile:
    profile = Profile()
    columns = {name: getattr(trips, name) for name in TRIPS.names}
    profile.add(pa.RecordBatch.from_pydict({n: pa.array(v) for n, v in columns.items()}))
    return profile


def make_reference() -> DriftReference:
    train, valid = (profile_of(simulated_trips(m)) for m in ("2021-01", "2021-02"))
    return drift.make_reference(train, valid, simulated_trips("2021-02").trip_minutes, rmse=5.0)


def measured(
    trips: Trips,
    rmse: float | None = None,
    reference: DriftReference | None = None,
    *,
    rmse_relative_se: float = 0.01,
    coverage: float | None = None,
) -> dict[tuple[str, str], drift.DriftMeasure]:
    predictions = drift.count_predictions(trips.trip_minutes)
    found = drift.measure_drift(
        reference or make_reference(),
        profile_of(trips),
        predictions,
        errors=rmse and MonthScores(len(trips), rmse, rmse_relative_se, coverage),
        rmse_before=5.0,
        thresholds=LOOSE,
    )
    return {(one.measure, one.of): one for one in found}


def test_psi_is_what_its_formula_gives() -> None:
    expected, found = np.array([500, 300, 200]), np.array([200, 300, 500])
    by_hand = 0.3 * np.log(0.5 / 0.2) + 0.3 * np.log(0.5 / 0.2)
    assert drift.psi(expected, found) == pytest.approx(by_hand, rel=0.01)


def test_psi_of_one_distribution_with_itself_is_zero_whatever_its_size() -> None:
    counts = np.array([5, 3, 2]) * 1000
    assert drift.psi(counts, counts * 7) == pytest.approx(0, abs=1e-3)


def test_an_empty_bin_is_no_infinity() -> None:
    assert 1 < drift.psi(np.array([50, 50, 0]), np.array([0, 0, 100])) < 20


def test_rare_bins_are_counted_together() -> None:
    # 900 bins with one trip each, but different ones in the two counts
    common, rare = [50_000, 50_000], np.zeros(900, int)
    here, there = rare.copy(), rare.copy()
    here[:450], there[450:] = 1, 1
    assert drift.psi(np.append(common, here), np.append(common, there)) < 0.001


def test_a_zone_of_few_trips_that_a_third_of_the_month_begins_in_has_drifted() -> None:
    trips = simulated_trips("2021-03")
    begun = profile_of(simulated_trips("2021-01")).counts["pickup_zone"]
    rare = np.where(begun > 0, begun, begun.max()).argmin()
    there = np.where(np.arange(len(trips)) % 3 == 0, rare, trips.pickup_zone).astype(np.int32)
    assert measured(replace(trips, pickup_zone=there))["PSI", "pickup_zone"].drifted


def test_the_next_month_of_the_same_city_has_not_drifted() -> None:
    found = measured(simulated_trips("2021-03"), rmse=5.1)
    assert [one for one in found.values() if one.drifted] == []
    assert len(found) == len(drift.COMPARED_HISTOGRAMS) + 5


@pytest.mark.parametrize("n_trips", [30, 100, 300])
def test_so_few_trips_of_the_next_month_that_they_lie_off_by_chance_are_no_drift(
    n_trips: int,
) -> None:
    trips, reference = simulated_trips("2021-03"), make_reference()
    told = []
    for seed in range(20):
        few = trips.take(np.random.default_rng(seed).permutation(len(trips))[:n_trips])
        found = measured(few, rmse=6.5, reference=reference, rmse_relative_se=0.1)
        told += [one for one in found.values() if one.drifted]
    assert told == []


def test_few_trips_that_lie_off_by_more_than_chance_have_drifted() -> None:
    trips = simulated_trips("2021-03").take(np.arange(100))
    there = replace(trips, pickup_zone=np.full(100, 5, np.int32))
    found = measured(there, rmse=9.0, rmse_relative_se=0.1)
    assert {of for (_, of), one in found.items() if one.drifted} >= {"pickup_zone", "RMSE"}
    assert found["PSI", "pickup_zone"].threshold > LOOSE.max_psi
    assert found["rise", "RMSE"].threshold == 0.4


@pytest.mark.parametrize("n_common", [6, 24, 50])
def test_what_chance_makes_of_histograms_is_what_four_deviations_of_chi_squared_are(
    n_common: int,
) -> None:
    counts = np.append(np.full(n_common, 100), 0)  # and a rare bin, so as many are free
    n_trips = 100 * n_common
    by_table = chi2.ppf(norm.cdf(4), n_common) * (1 / n_trips + 1 / (3 * n_trips))
    assert drift.psi_by_chance(counts, 3 * counts) == pytest.approx(by_table, rel=0.03)
    assert drift.psi_by_chance(counts, 0 * counts) == 0  # a month of no trip that counts


def test_what_chance_makes_of_a_share_is_hardly_ever_exceeded_and_of_that_order() -> None:
    for share, n_trips in ((0.8, 100), (0.02, 300), (0.0, 50)):
        limit = drift.share_by_chance(share, n_trips)
        assert binom.sf(np.floor(n_trips * (share + limit)), n_trips, share) <= norm.sf(4)
        assert limit == pytest.approx(4 * np.sqrt(share * (1 - share) / n_trips), abs=6 / n_trips)


def test_a_month_of_many_trips_is_held_against_the_thresholds_that_were_asked_for() -> None:
    reference, now = (np.full(40, n) for n in (1_500, 800))
    assert drift.psi_by_chance(reference, now) < 0.01
    assert drift.share_by_chance(0.02, 32_000) < 0.005
    found = measured(simulated_trips("2021-03"), rmse=5.1)
    asked = {"PSI": 0.25, "unseen above valid": 0.05, "above fitted": 0.05, "rise": 0.15}
    assert all(one.threshold == asked[one.measure] for one in found.values())


def test_a_threshold_of_0_tells_of_any_move() -> None:
    few = simulated_trips("2021-03").take(np.arange(100))
    thresholds = DriftThresholds(0, 0, 0, 0)
    found = drift.measure_drift(
        make_reference(),
        profile_of(few),
        drift.count_predictions(few.trip_minutes),
        errors=MonthScores(100, 5.1, 0.1, 0.79),
        rmse_before=5.0,
        thresholds=thresholds,
    )
    assert {one.of for one in found if one.drifted} >= {
        *drift.COMPARED_HISTOGRAMS,
        "prediction",
        "RMSE",
        "80 % interval",
    }


@pytest.mark.parametrize(
    ("column", "of"),
    [("distance_miles", "distance_miles"), ("pickup_zone", "pickup_zone")],
)
def test_a_feature_that_has_moved_is_named(column: str, of: str) -> None:
    trips = simulated_trips("2021-03")
    values = {name: getattr(trips, name) for name in TRIPS.names}
    moved = Trips(**values | {column: np.full(len(trips), 5).astype(values[column].dtype)})
    found = measured(moved)
    assert found["PSI", of].drifted
    assert not found["PSI", "hour"].drifted


def test_trips_all_at_one_hour_have_moved_in_that_alone() -> None:
    trips = simulated_trips("2021-03")
    days = trips.pickup_at.astype("datetime64[D]")
    values = {name: getattr(trips, name) for name in TRIPS.names}
    found = measured(
        Trips(**values | {"pickup_at": (days + np.timedelta64(3, "h")).astype("M8[us]")})
    )
    moved = [one.of for one in found.values() if one.drifted]
    assert moved == ["hour"]


def test_trips_between_places_no_train_trip_knows_are_counted() -> None:
    found = measured(random_trips(3_000, seed=1, n_zones=265))
    assert found["unseen above valid", "pair of zones"].drifted
    train = profile_of(simulated_trips("2021-01"))
    assert drift.unseen_shares(train, train) == (0.0, 0.0)


def test_a_zone_that_no_train_trip_has_is_unseen_at_either_end() -> None:
    train = profile_of(random_trips(500, seed=1, n_zones=40))
    there, never = random_trips(4, seed=2, n_zones=40), np.array([200, 7, 7, 7], np.int32)
    values = {name: getattr(there, name) for name in TRIPS.names}
    for end in ("pickup_zone", "dropoff_zone"):
        zone, pair = drift.unseen_shares(train, profile_of(Trips(**values | {end: never})))
        assert zone == 0.25
        assert pair >= 0.25


@pytest.mark.parametrize(("n_without", "drifted"), [(0, False), (60, False), (300, True)])
def test_more_trips_without_a_distance_than_in_training_are_drift(
    n_without: int, drifted: bool
) -> None:
    trips = simulated_trips("2021-03")
    miles = np.where(np.arange(len(trips)) < n_without, 0.0, trips.distance_miles)
    found = measured(replace(trips, distance_miles=miles))["above fitted", "trips without distance"]
    assert found.drifted == drifted
    train = simulated_trips("2021-01")
    more = np.isnan(clean_miles(replace(trips, distance_miles=miles))).mean()
    assert found.value == pytest.approx(more - np.isnan(clean_miles(train)).mean())


def test_a_reference_from_before_trips_without_distance_were_counted_is_still_read() -> None:
    state = json.loads(json.dumps(make_reference().state()))
    del state["train"]["counts"][HAS_DISTANCE]
    trips = simulated_trips("2021-03")
    found = measured(trips, reference=DriftReference.restore(state))
    assert ("above fitted", "trips without distance") not in found
    assert found.keys() < measured(trips).keys()


def test_a_refitted_model_is_held_against_train_and_valid_and_what_it_says_of_valid() -> None:
    quiet, other = random_trips(300, seed=1, n_zones=40), simulated_trips("2021-02")
    chosen = drift.make_reference(profile_of(quiet), profile_of(other), np.full(9, 5.0), rmse=5.0)
    again = drift.refit_reference(chosen, profile_of(other), other.trip_minutes)
    assert again.train.n_trips == len(quiet) + len(other)
    assert again.predictions.sum() == len(other)
    assert again[2:] == chosen[2:]  # measured on trips that nothing was fitted to
    before, after = (measured(other, reference=each) for each in (chosen, again))
    assert before["PSI", "pickup_zone"].drifted
    assert before["PSI", "prediction"].drifted
    assert [one for one in after.values() if one.drifted] == []
    assert chosen.train.n_trips == len(quiet)


@pytest.mark.parametrize(("rmse", "drifted"), [(5.0, False), (5.7, False), (5.8, True)])
def test_an_error_that_has_risen_is_drift(rmse: float, drifted: bool) -> None:
    assert measured(simulated_trips("2021-03"), rmse)["rise", "RMSE"].drifted == drifted


@pytest.mark.parametrize(
    ("coverage", "n_trips", "drifted"),
    [
        (0.80, 2_000, False),
        (0.72, 2_000, False),
        (0.715, 2_000, True),
        (0.89, 2_000, True),  # intervals too wide are of no use for planning
        (0.70, 100, False),  # by chance alone, four standard deviations are 21 %
        (0.50, 100, True),
    ],
)
def test_intervals_that_hold_fewer_or_more_trips_than_they_promise_are_drift(
    coverage: float, n_trips: int, drifted: bool
) -> None:
    trips = simulated_trips("2021-03").take(np.arange(n_trips))
    found = measured(trips, rmse=5.1, rmse_relative_se=0.1, coverage=coverage)
    one = found["coverage gap", "80 % interval"]
    assert (one.drifted, one.value) == (drifted, pytest.approx(abs(coverage - 0.8)))


def test_an_error_is_not_compared_with_that_of_months_on_which_there_was_none() -> None:
    errors = MonthScores(100, 1.0, 0.1, 0.8)
    assert [one.of for one in drift._measure_errors(errors, 0.0, LOOSE)] == [drift.INTERVAL]


def test_where_no_dropoff_is_known_no_error_is_measured() -> None:
    assert ("rise", "RMSE") not in measured(simulated_trips("2021-03"))


def test_a_reference_comes_back_from_json_as_it_was() -> None:
    before = make_reference()
    after = DriftReference.restore(json.loads(json.dumps(before.state())))
    assert after.state() == before.state()
    assert np.array_equal(after.train.pairs, before.train.pairs)
    assert after.unseen_pairs == before.unseen_pairs > 0


def test_the_picture_shows_the_months_beside_the_training_and_every_measure() -> None:
    trips = simulated_trips("2021-03")
    month = (profile_of(trips), drift.count_predictions(trips.trip_minutes))
    found = measured(trips, rmse=9.0)
    figure = drift.draw_drift(
        make_reference(), {"2021-03": month}, {"2021-03": list(found.values())}
    )
    legends = [[t.get_text() for t in axis.get_legend().texts] for axis in figure.axes[:4]]
    names = [[text.partition(" ")[0] for text in legend] for legend in legends]
    assert names == [["fitted", "2021-03"]] * 3 + [["valid", "2021-03"]]
    told = max(found.values(), key=lambda one: (one.of == "hour") * (1 + one.value)).value
    assert figure.axes[1].get_title("left") == f"Furthest off: 2021-03, PSI {told:.3f}"
    for axis in figure.axes[4:]:
        assert [text.get_text() for text in axis.get_legend().texts] == ["2021-03"]
    points = [
        line for axis in figure.axes[4:] for line in axis.lines if line.get_label() == "2021-03"
    ]
    assert sum(len(line.get_xdata()) for line in points) == len(found)
