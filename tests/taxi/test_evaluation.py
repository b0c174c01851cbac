from itertools import pairwise

import numpy as np
import pytest
import xgboost as xgb
from matplotlib.backends.backend_agg import FigureCanvasAgg

from taxi import bootstrap, coverage, evaluation, features
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.breakdown import break_down
from taxi.groups import N_ZONE_GROUPS
from taxi.rows import make_rows
from taxi.schema import Trips
from taxi.scores import rmse, score_predictions
from taxi.scoring import ErrorSums
from tests.conftest import make_trips, random_trips, simulated_trips


@pytest.fixture(scope="module")
def trips() -> Trips:
    return random_trips(2_000, seed=1)


@pytest.fixture(scope="module")
def predicted(trips: Trips) -> np.ndarray:
    return trips.trip_minutes + np.random.default_rng(2).normal(1.0, 4.0, len(trips))


def test_scores_are_those_of_the_textbook() -> None:
    minutes, predicted = np.array([10.0, 20.0, 30.0, 40.0]), np.array([13.0, 16.0, 30.0, 52.0])
    scores = score_predictions(minutes, predicted)
    assert scores == {
        "rmse": 6.5,  # errors of 3, 4, 0 and 12
        "mae": 4.75,
        "median_ae": 3.5,
        "r2": pytest.approx(1 - 169 / 500),
        "within_5_min": 0.75,
    }


def test_predicting_the_mean_explains_nothing(trips: Trips) -> None:
    mean = np.full(len(trips), trips.trip_minutes.mean())
    scores = score_predictions(trips.trip_minutes, mean)
    assert scores["r2"] == pytest.approx(0)
    assert scores["rmse"] == pytest.approx(trips.trip_minutes.std())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("predicted", [10.0, 11.0])
def test_trips_that_all_took_as_long_have_no_r2_worth_anything(predicted: float) -> None:
    assert score_predictions(np.full(1, 10.0), np.full(1, predicted))["r2"] == float("-inf")


def test_every_way_to_the_rmse_gives_the_same(trips: Trips, predicted: np.ndarray) -> None:
    error = predicted - trips.trip_minutes
    wanted = rmse(error)
    assert wanted == np.sqrt(np.mean(error**2))
    errors = ErrorSums()
    for part in np.array_split(error, 7):
        errors.add(part)
    assert errors.scores()["rmse"] == pytest.approx(wanted, rel=1e-12)
    interval = bootstrap.score_intervals(trips.trip_minutes, predicted, seed=1)["rmse"]
    assert interval.value == pytest.approx(wanted, rel=1e-12)
    assert score_predictions(trips.trip_minutes, predicted)["rmse"] == wanted


@pytest.mark.parametrize("kind", ["hour", "distance", "pickup zone"])
def test_each_trip_is_in_one_group_of_each_kind(
    kind: str, trips: Trips, predicted: np.ndarray
) -> None:
    scores = score_predictions(trips.trip_minutes, predicted)
    found = evaluation.errors_by_group(trips, predicted)
    groups = [group for group in found if group.kind == kind]
    assert len(groups) > 3
    n = np.array([group.n_trips for group in groups])
    assert n.sum() == len(trips)
    square = n @ np.array([group.rmse**2 for group in groups]) / len(trips)
    assert square == pytest.approx(scores["rmse"] ** 2)
    mae = n @ np.array([group.mae for group in groups]) / len(trips)
    assert mae == pytest.approx(scores["mae"])


def test_the_bias_is_above_0_where_predictions_are_too_long() -> None:
    trips = make_trips(3, trip_minutes=[10, 20, 30])
    (hour, *_) = evaluation.errors_by_group(trips, np.array([12.0, 22.0, 35.0]))
    assert hour == ("hour", "17", 3, pytest.approx(np.sqrt(11)), 3.0, 3.0)


@pytest.mark.parametrize(
    ("miles", "band"),
    [
        (0.5, "00.0..01.0 miles"),
        (1.0, "00.0..01.0 miles"),
        (1.1, "01.0..02.0 miles"),
        (60.0, "16.0..60.0 miles"),
        (0.0, "no distance"),
        (61.0, "no distance"),
        (np.nan, "no distance"),
    ],
)
def test_a_distance_falls_in_one_band_its_upper_end_in(miles: float, band: str) -> None:
    groups = evaluation.errors_by_group(make_trips(2, distance_miles=miles), np.zeros(2))
    assert [group.group for group in groups if group.kind == "distance"] == [band]


def test_the_busiest_zones_come_first_and_the_groups_are_about_equal() -> None:
    trips = random_trips(5_000, seed=3, n_zones=200)
    groups = evaluation.errors_by_group(trips, trips.trip_minutes)
    sizes = [group.n_trips for group in groups if group.kind == "pickup zone"]
    assert len(sizes) == N_ZONE_GROUPS
    assert max(sizes) < 1.2 * min(sizes)
    one = make_trips(10, pickup_zone=[1] * 8 + [2, 3])
    names = [g.group for g in evaluation.errors_by_group(one, np.zeros(10)) if "zone" in g.kind]
    assert names == ["busyness 1 (1 zone)", "busyness 5 (2 zones)"]


def test_the_picture_shows_the_errors_of_the_groups_it_is_given(
    trips: Trips, predicted: np.ndarray
) -> None:
    groups = evaluation.errors_by_group(trips, predicted)
    residual, calibration, hour, distance = evaluation.draw_evaluation(
        trips, predicted, groups
    ).axes
    (outline,) = residual.patches
    assert outline.get_data().values.sum() == len(trips)
    _diagonal, curve = calibration.lines
    x, y = curve.get_data()
    assert np.all(np.diff(x) > 0)
    assert np.corrcoef(x, y)[0, 1] > 0.9
    error = np.abs(predicted - trips.trip_minutes)
    assert residual.figure.get_suptitle().startswith(f"Off by {np.sqrt((error**2).mean()):.2f} min")
    near = 100 * (error <= 5).mean()
    said = f"{near:.0f} % of the trips are predicted within 5 minutes"
    assert residual.get_title("left") == said
    said = f"Predicted means are within {np.abs(x - y).max():.1f} min of the measured ones"
    assert calibration.get_title("left") == said
    worst = max((one.rmse, one.group) for one in groups if one.kind == "hour")
    assert hour.get_title("left") == f"By hour: most off at {worst[1]}:00, {worst[0]:.1f} min"
    for axis, kind in ((hour, "hour"), (distance, "distance")):
        heights = [bar.get_height() for bar in axis.patches]
        assert heights == [group.rmse for group in groups if group.kind == kind]


def test_trips_that_never_have_a_distance_are_drawn_by_the_zones_they_begin_in() -> None:
    trips = simulated_trips("2021-01", taxi="fhv")
    predicted = np.full(len(trips), trips.trip_minutes.mean())
    groups = evaluation.errors_by_group(trips, predicted)
    _, _, _, place = evaluation.draw_evaluation(trips, predicted, groups).axes
    heights = [bar.get_height() for bar in place.patches]
    assert heights == [group.rmse for group in groups if group.kind == "pickup zone"]
    assert place.get_xlabel() == "pickup zone · trips"
    FigureCanvasAgg(place.figure).draw()
    labels = [label.get_window_extent() for label in place.get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in pairwise(labels))


def test_trips_told_alike_are_one_point_of_the_calibration_in_whatever_order_they_come(
    trips: Trips, predicted: np.ndarray
) -> None:
    told = np.round(predicted / 10)  # few distinct predictions, as from a shallow tree or a mean
    order = np.random.default_rng(3).permutation(len(trips))
    bins = break_down(trips, told).calibration
    again = break_down(trips.take(order), told[order]).calibration
    assert [one.n_trips for one in again] == [one.n_trips for one in bins]
    assert [one.measured for one in again] == pytest.approx([one.measured for one in bins])
    (mean,) = break_down(trips, np.full(len(trips), 12.0)).calibration
    assert mean.measured == pytest.approx(trips.trip_minutes.mean())


@pytest.mark.parametrize("factor", [1.0, 10_000.0])
def test_nothing_on_the_pictures_is_cut_or_runs_into_its_neighbour(
    trips: Trips, predicted: np.ndarray, factor: float
) -> None:
    groups = evaluation.errors_by_group(trips, factor * predicted)
    errors = evaluation.draw_evaluation(trips, factor * predicted, groups)
    for figure in (errors, coverage.draw_reliability(np.linspace(0, 1, 19))):
        FigureCanvasAgg(figure).draw()
        written, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(written.min) >= 0
        assert (written.x1 <= width, written.y1 <= height) == (True, True)
    for axis in errors.axes[2:]:
        labels = [label.get_window_extent() for label in axis.get_xticklabels()]
        assert all(one.x1 < other.x0 for one, other in pairwise(labels)), axis.get_title()


@pytest.mark.parametrize("objective", ["reg:squarederror", "count:poisson"])
def test_minutes_that_features_move_a_prediction_are_minutes_with_either_loss(
    objective: str,
) -> None:
    known = np.zeros((400, 2), np.float32)
    known[::2, 0] = 1
    minutes = np.where(known[:, 0] == 1, 30.0, 10.0)
    settings = {"objective": objective, "learning_rate": 0.5, "nthread": 1}
    booster = xgb.train(settings, xgb.DMatrix(known, minutes), num_boost_round=40)
    # one feature alone tells trips apart, so that without it all were predicted alike
    rows = xgb.DMatrix(known)
    moved = evaluation.shap_minutes(booster, rows)
    without = booster.predict(rows) - moved[:, 0]
    assert without == pytest.approx(without[0], rel=1e-4)
    assert 10 < without[0] < 30
    importance = evaluation.feature_importance(booster, known, ["far", "nothing"])
    assert importance["far"]["shap"] == pytest.approx(10, rel=0.01)
    assert importance["nothing"]["shap"] == 0


def test_the_gain_of_a_feature_is_what_its_splits_take_off_the_loss() -> None:
    known = np.zeros((400, 2), np.float32)
    known[::2, 0] = 1
    minutes = np.where(known[:, 0] == 1, 30.0, 10.0)
    settings = {"base_score": 20, "reg_lambda": 0, "max_depth": 1, "nthread": 1}
    booster = xgb.train(settings, xgb.DMatrix(known, minutes), num_boost_round=1)
    importance = evaluation.feature_importance(booster, known, ["far", "nothing"])
    assert importance["far"]["gain"] == pytest.approx(400 * 10**2)  # each was off by 10 min
    assert importance["nothing"]["gain"] == 0


def test_the_feature_that_decides_the_minutes_is_the_most_important() -> None:
    train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    encoder = features.fit_encoder("compact", train)
    rows = make_rows(encoder, train, valid)
    job = TrainingJob({"max_depth": 4, "nthread": 1}, rounds=20, patience=20, keep_booster=True)
    booster = train_booster(build_matrices(rows), job).booster
    importance = evaluation.feature_importance(booster, rows.valid, encoder.names)
    assert set(importance) == set(encoder.names)
    assert next(iter(importance)) == "filled_miles"
    shap = [values["shap"] for values in importance.values()]
    assert shap == sorted(shap, reverse=True)
    axis = evaluation.draw_feature_importance(importance).axes[0]
    assert [bar.get_width() for bar in axis.patches] == shap[::-1]
