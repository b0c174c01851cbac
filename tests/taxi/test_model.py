import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

from taxi import TripError, features, openapi
from taxi import model as model_module
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.features import FEATURE_SETS
from taxi.model import ROWS_PER_TASK, TripModel, input_columns, trips_to_frame
from taxi.request import list_warnings, read_frame
from taxi.rows import make_rows
from taxi.schema import TAXIS, Trips, clean_miles
from taxi.spread import Calibration, fit_spread
from tests.conftest import make_trips, simulated_trips

TIME, START, END, MILES = "lpep_pickup_datetime", "PULocationID", "DOLocationID", "trip_distance"
PARAMETERS = {"objective": "reg:squarederror", "max_depth": 4, "subsample": 0.5, "nthread": 1}


@cache
def make_model(features_name: str = "full", n_boosters: int = 1) -> TripModel:
    train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    encoder = features.fit_encoder(features_name, train)
    matrices = build_matrices(make_rows(encoder, train, valid))
    boosters = [
        train_booster(
            matrices, TrainingJob(PARAMETERS | {"seed": s}, rounds=9, patience=9, keep_booster=True)
        ).booster
        for s in range(n_boosters)
    ]
    return TripModel("green", encoder, boosters)


def calibrate(model: TripModel, valid: Trips) -> Calibration:
    """Predict trips that a model was not fitted on, with their distances and without."""
    return Calibration(valid, model.predict(valid), model.predict(valid.without_distance()))


def make_linear() -> TripModel:
    train = simulated_trips("2021-01")
    encoder = features.fit_encoder("course", train)
    estimator = LinearRegression().fit(encoder.transform_train(train), train.trip_minutes)
    return TripModel("green", encoder, [estimator])


MODELS: dict[str, Callable[[], TripModel]] = {
    "one booster": make_model,
    "eleven boosters": lambda: make_model(n_boosters=11),  # numbered with more than one digit
    "booster of pairs": lambda: make_model("course"),
    "linear of pairs": make_linear,
}


@pytest.fixture
def model() -> TripModel:
    return make_model()


@pytest.fixture(scope="module")
def trips() -> Trips:
    return simulated_trips("2021-02").take(np.arange(300))


@pytest.fixture
def frame(trips: Trips) -> pd.DataFrame:
    return trips_to_frame(trips, "green")


# --- files


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_the_same_after_saving_and_loading(name: str, trips: Trips) -> None:
    model = MODELS[name]()
    wanted = model.predict(trips)
    loaded = TripModel.from_files(model.to_files())
    assert loaded.predict(trips).tobytes() == wanted.tobytes()
    assert loaded.taxi == model.taxi
    assert len(loaded.estimators) == len(model.estimators)


@pytest.mark.parametrize("name", ["one booster", "eleven boosters", "booster of pairs"])
def test_saving_gives_the_same_bytes_before_and_after_use_and_loading(
    name: str, trips: Trips
) -> None:
    model = MODELS[name]()
    files = model.to_files()
    model.predict(trips)
    assert model.to_files() == files
    assert TripModel.from_files(files).to_files() == files


def test_several_boosters_answer_their_mean(trips: Trips) -> None:
    several = make_model(n_boosters=3)
    alone = [TripModel("green", several.encoder, [b]).predict(trips) for b in several.estimators]
    assert np.ptp(alone, axis=0).max() > 0.1
    assert several.predict(trips) == pytest.approx(np.mean(alone, axis=0))


@pytest.mark.parametrize("name", MODELS)
def test_the_number_of_rows_in_a_call_changes_no_digit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, many = MODELS[name](), simulated_trips("2021-02")
    whole = model.predict(many)
    assert len(many) > 4 * ROWS_PER_TASK
    for n in (1, 7, ROWS_PER_TASK - 1, ROWS_PER_TASK, ROWS_PER_TASK + 1, 2 * ROWS_PER_TASK + 7):
        assert model.predict(many.take(np.arange(n))).tobytes() == whole[:n].tobytes()
    monkeypatch.setattr(model_module, "ROWS_AT_ONCE", 2 * ROWS_PER_TASK - 1)
    encoded, transform = [], type(model.encoder).transform

    def encode(encoder: Any, trips: Trips) -> Any:
        encoded.append(len(trips))
        return transform(encoder, trips)

    monkeypatch.setattr(type(model.encoder), "transform", encode)
    assert model.predict(many).tobytes() == whole.tobytes()
    assert max(encoded) == 2 * ROWS_PER_TASK - 1


@pytest.mark.parametrize("name", ["one booster", "eleven boosters", "booster of pairs"])
def test_many_rows_are_answered_as_by_the_bare_boosters_at_once(name: str) -> None:
    model, many = MODELS[name](), simulated_trips("2021-02")
    matrix = model.encoder.transform(many)
    files = {name: data for name, data in model.to_files().items() if name.endswith(".ubj")}
    bare = [
        xgb.Booster(model_file=bytearray(files[name])).inplace_predict(matrix)
        for name in sorted(files)
    ]
    assert model.predict(many).tobytes() == np.mean(bare, axis=0, dtype=np.float64).tobytes()


def test_a_booster_is_asked_about_many_rows_in_few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, trips, n_rows = make_model(), simulated_trips("2021-02"), list[int]()
    ask = xgb.Booster.inplace_predict

    def count(booster: xgb.Booster, matrix: Any) -> Any:
        n_rows.append(len(matrix))
        return ask(booster, matrix)

    monkeypatch.setattr(xgb.Booster, "inplace_predict", count)
    matrix = np.repeat(model.encoder.transform(trips), 10, axis=0)
    predicted = model_module.predict_rows(model.estimators[0], matrix)
    assert len(predicted) == len(matrix) == sum(n_rows)
    assert len(n_rows) == model_module.N_TASKS


@pytest.mark.parametrize("name", MODELS)
def test_threads_that_ask_at_once_get_the_answers_of_one(name: str) -> None:
    model, many = TripModel.from_files(MODELS[name]().to_files()), simulated_trips("2021-02")
    # few rows and many: they are predicted in two different ways
    asked = [many.take(np.arange(n)) for n in (1, 3, 2 * ROWS_PER_TASK, 5)] * 16
    with ThreadPoolExecutor(8) as executor:  # even the very first answers are concurrent
        answers = list(executor.map(model.predict, asked))
    wanted = MODELS[name]().predict(many)
    for trips, minutes in zip(asked, answers, strict=True):
        assert minutes.tobytes() == wanted[: len(trips)].tobytes()


def test_a_booster_just_trained_is_served_as_it_is_after_loading(trips: Trips) -> None:
    train = simulated_trips("2021-01")
    encoder = features.fit_encoder("full", train)
    matrices = build_matrices(make_rows(encoder, train, simulated_trips("2021-02")))
    job = TrainingJob(PARAMETERS | {"nthread": 2}, rounds=5, patience=5, keep_booster=True)
    booster = train_booster(matrices, job).booster
    before = booster.save_raw("ubj"), booster.save_config()
    fresh = TripModel("green", encoder, [booster])
    fresh.predict(trips)
    loaded = TripModel.from_files(fresh.to_files())
    assert fresh.to_files() == loaded.to_files()
    assert fresh.to_files()["booster-000.ubj"] == bytes(before[0])
    configs = [model.estimators[0].save_config() for model in (fresh, loaded)]
    assert configs[0] == configs[1]
    assert json.loads(configs[0])["learner"]["generic_param"]["nthread"] == "1"
    assert (booster.save_raw("ubj"), booster.save_config()) == before  # the caller's is unchanged


def test_what_a_model_holds_is_plain_json(model: TripModel) -> None:
    about = json.loads(model.to_files()["model.json"])
    assert about["taxi"] == "green"
    assert about["encoder"]["names"] == list(FEATURE_SETS["full"])


ZONES = {START: True, END: True}
INPUTS_OF = {
    "green": {TIME: True, **ZONES, MILES: False},
    "yellow": {"tpep_pickup_datetime": True, **ZONES, MILES: False},
    "fhvhv": {"pickup_datetime": True, **ZONES, "trip_miles": False},
    "fhv": {"pickup_datetime": True, "PUlocationID": False, "DOlocationID": False},
}


@pytest.mark.parametrize("taxi", TAXIS)
def test_a_model_asks_for_what_it_reads_and_what_need_not_be_known_is_optional(taxi: str) -> None:
    columns = input_columns(taxi)
    assert columns == INPUTS_OF[taxi]
    assert list(columns) == list(trips_to_frame(make_trips(1), taxi))


def test_a_zone_that_nobody_knows_is_answered_where_most_trips_have_none() -> None:
    sent = {"pickup_datetime": ["2021-03-05 17:45:00"] * 3, "PUlocationID": [None, 74, "75"]}
    trips = read_frame(pd.DataFrame(sent), "fhv")
    assert trips.pickup_zone.tolist() == [0, 74, 75]
    assert trips.pickup_zone.dtype == trips.dropoff_zone.dtype == np.int32
    assert trips.dropoff_zone.tolist() == [0, 0, 0]
    assert np.isnan(trips.distance_miles).all()
    assert list_warnings(pd.DataFrame(sent), "fhv") == []
    with pytest.raises(TripError, match="Row 0, column 'PUlocationID': got 'Harlem'"):
        read_frame(pd.DataFrame({**sent, "PUlocationID": "Harlem"}), "fhv")
    apps = {"pickup_datetime": ["2021-03-05 17:45:00"], "PULocationID": [None], "DOLocationID": [1]}
    with pytest.raises(TripError, match="Row 0, column 'PULocationID': got None"):
        read_frame(pd.DataFrame(apps), "fhvhv")


@pytest.mark.parametrize("taxi", TAXIS)
def test_what_a_server_says_of_its_requests_is_what_the_model_takes(taxi: str) -> None:
    told, page = openapi.describe_request(taxi), openapi.describe_as_html(taxi)
    body = told["requestBody"]["content"]["application/json"]
    rows = body["schema"]["properties"]["dataframe_records"]["items"]
    assert {name: name in rows["required"] for name in rows["properties"]} == INPUTS_OF[taxi]
    may_be_null = {name for name, about in rows["properties"].items() if "null" in about["type"]}
    assert may_be_null == {name for name, must in INPUTS_OF[taxi].items() if not must}
    assert len(read_frame(pd.DataFrame(body["example"]["dataframe_records"]), taxi)) == 1
    assert told["summary"] == f"Minutes that {TAXIS[taxi].plural} take"
    assert f"<main>\n<h1>Minutes of {TAXIS[taxi].plural}</h1>" in page
    assert all(f"<code>{name}</code>" in page for name in INPUTS_OF[taxi])


def test_an_estimator_that_could_not_be_loaded_again_is_not_saved() -> None:
    neighbours = KNeighborsRegressor(2, algorithm="kd_tree").fit(np.eye(3), np.arange(3.0))
    with pytest.raises(TripError, match=r"contain .*KDTree\. .* TRUSTED_TYPES in taxi/model\.py"):
        model_module.write_estimator(neighbours)


# --- how sure it is


def test_a_model_keeps_its_spread_when_it_is_saved(frame: pd.DataFrame) -> None:
    plain, valid = make_model(), simulated_trips("2021-02")
    model = plain.with_spread(fit_spread(calibrate(plain, valid)))
    assert plain.spread is None
    asked = {"quantiles": [0.1, 0.9], "longer_than": 20}
    loaded = TripModel.from_files(model.to_files())
    found, wanted = loaded.answer(frame, asked), model.answer(frame, asked)
    assert isinstance(found, pd.DataFrame) and isinstance(wanted, pd.DataFrame)
    pd.testing.assert_frame_equal(found, wanted)
    assert np.array_equal(found["prediction"], plain.answer(frame))
    assert np.array_equal(np.asarray(loaded.answer(frame)), plain.answer(frame))


def test_an_answer_in_columns_joins_the_rows_that_it_is_of(
    model: TripModel, frame: pd.DataFrame
) -> None:
    booked = frame.set_index(pd.Index(range(900, 900 + len(frame)), name="booking"))
    answer = model.answer(booked[::-1], {"live": True})
    assert isinstance(answer, pd.DataFrame)
    joined = booked.join(answer)["prediction"]
    assert joined.tolist() == np.asarray(model.answer(frame)).tolist()


def test_a_bad_row_is_named_whatever_is_asked(model: TripModel, frame: pd.DataFrame) -> None:
    spoilt = frame.assign(**{START: "Harlem"})
    with pytest.raises(TripError, match="Row 0, column 'PULocationID': got 'Harlem'"):
        model.answer(spoilt, {"quantiles": [0.5]})


# --- trips without a distance


def test_trips_without_a_distance_are_answered_by_boosters_of_their_own_and_no_others() -> None:
    with_distance, without_distance = make_model(n_boosters=2), make_model("full", 1)
    model = TripModel(
        "green", with_distance.encoder, with_distance.estimators, without_distance.estimators
    )
    valid = simulated_trips("2021-02")
    without = valid.without_distance()
    assert np.array_equal(model.predict(without), without_distance.predict(without))
    known = np.isfinite(clean_miles(valid))
    assert 0 < known.sum() < len(valid)
    assert np.array_equal(model.predict(valid)[known], with_distance.predict(valid)[known])
    assert np.array_equal(model.predict(valid)[~known], without_distance.predict(valid)[~known])


@pytest.mark.parametrize("name", ["full", "compact"])
def test_a_part_of_the_answer_is_that_for_the_same_trip_without_its_distance(name: str) -> None:
    with_distance, without_distance = make_model(name, 2), make_model(name, 1)
    parts = with_distance.encoder, with_distance.estimators, without_distance.estimators
    model = TripModel("green", *parts, weight_without_distance=0.25)
    valid = simulated_trips("2021-02")
    known = np.isfinite(clean_miles(valid))
    without = without_distance.predict(valid.without_distance())
    blended = 0.75 * with_distance.predict(valid) + 0.25 * without
    assert np.array_equal(model.predict(valid), np.where(known, blended, without))
    assert np.array_equal(model.predict(valid.take(known)), blended[known])
    rebuilt = TripModel.from_files(model.to_files())
    assert np.array_equal(rebuilt.predict(valid), model.predict(valid))


def test_no_model_leaves_out_a_share_of_its_answer_without_a_word() -> None:
    course = make_model("course", 1)
    model = TripModel(
        "green", course.encoder, course.estimators, course.estimators, weight_without_distance=0.1
    )
    with pytest.raises(TypeError, match="cannot do without a distance"):
        model.predict(simulated_trips("2021-02").take(slice(5)))


def test_a_model_saved_without_a_weight_answers_by_its_boosters_with_a_distance() -> None:
    with_distance, without_distance = make_model(n_boosters=2), make_model("full", 1)
    parts = with_distance.encoder, with_distance.estimators, without_distance.estimators
    files = TripModel("green", *parts, weight_without_distance=0.25).to_files()
    about = json.loads(files["model.json"])
    del about["blind_share"]
    model = TripModel.from_files(files | {"model.json": json.dumps(about).encode()})
    known = simulated_trips("2021-02").take(slice(5))
    assert np.array_equal(model.predict(known), with_distance.predict(known))


def test_boosters_without_a_distance_are_saved_beside_the_others() -> None:
    with_distance, without_distance = make_model(n_boosters=2), make_model("full", 1)
    model = TripModel(
        "green", with_distance.encoder, with_distance.estimators, without_distance.estimators
    )
    files = model.to_files()
    assert {"booster-000.ubj", "booster-001.ubj", "blind-000.ubj"} < set(files)
    valid = simulated_trips("2021-02")
    assert np.array_equal(TripModel.from_files(files).predict(valid), model.predict(valid))
    assert TripModel.from_files(files).to_files() == files
