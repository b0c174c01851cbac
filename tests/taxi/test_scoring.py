import numpy as np
import pyarrow as pa
import pytest

from taxi import TripError, scoring
from taxi.cleaning import clean
from taxi.drift import count_predictions
from taxi.expected_loss import EstimatedRmse
from taxi.schema import TAXIS
from taxi.scoring import ErrorSums, MonthTally
from taxi.simulation import month_batches
from tests.conftest import make_raw

MONTH = "2021-01"


def prepare(batch: pa.RecordBatch, taxi: str = "green") -> scoring.PreparedRows:
    return scoring.prepare_batch(batch, taxi=taxi, month=MONTH)


def test_a_row_without_a_time_or_a_zone_cannot_be_judged_and_any_other_can() -> None:
    batch = make_raw(
        n=5,
        pickup_at=[None, *["2021-01-15 17:45:00"] * 4],
        pickup_zone=[74, None, 74, 74, 74],
        dropoff_zone=[75, 75, None, 75, 75],
        distance_miles=[1.0, 1.0, 1.0, None, 1.0],
    )
    assert prepare(batch).predictable.tolist() == [False, False, False, True, True]
    assert len(scoring.request_frame(prepare(batch), "green")) == 2


@pytest.mark.parametrize("taxi", TAXIS)
def test_the_usual_rows_are_those_that_cleaning_keeps(taxi: str) -> None:
    (batch, *_) = month_batches(MONTH, 3_000, 42, taxi=taxi)
    kept = clean(batch, taxi=taxi, month=MONTH).trips
    prepared = prepare(batch, taxi)
    assert prepared.eligible.sum() == kept.num_rows < batch.num_rows
    minutes = prepared.minutes[prepared.eligible]
    assert np.array_equal(minutes, kept.column("trip_minutes").to_numpy())


def test_a_trip_still_to_be_made_is_usual_and_does_not_count() -> None:
    batch = make_raw(n=2, dropoff_at=["2021-01-15 17:57:00", None])
    prepared = prepare(batch)
    assert prepared.eligible.all()
    assert prepared.minutes[0] == 12
    assert np.isnan(prepared.minutes[1])
    rows = scoring.prediction_batch(
        prepared, np.array([10.0, 11.0]), taxi="green", model="m"
    ).to_pydict()
    assert rows["eligible"] == [True, False]
    assert rows["error"] == [-2.0, None]


@pytest.mark.parametrize("column", ["lpep_dropoff_datetime", "trip_distance"])
def test_a_month_may_lack_what_is_not_known_before_the_trip(column: str) -> None:
    batch = make_raw(n=2).drop_columns([column])
    prepared = prepare(batch)
    assert prepared.predictable.all()
    rows = scoring.prediction_batch(prepared, np.array([1.0, 2.0]), taxi="green", model="m")
    assert rows.column(column).null_count == 2


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.null()])
def test_drop_offs_that_nobody_filled_are_unknown_as_pandas_writes_them(kind: pa.DataType) -> None:
    batch, name = make_raw(n=2), "lpep_dropoff_datetime"
    place = batch.schema.get_field_index(name)
    for empty in ([None, None], [float("nan")] * 2)[: 1 if pa.types.is_null(kind) else 2]:
        prepared = prepare(batch.set_column(place, name, pa.array(empty, kind)))
        assert prepared.predictable.all()
        assert prepared.eligible.all()
        assert np.isnan(prepared.minutes).all()
        assert not prepared.unreadable


def test_a_number_in_an_unfilled_column_of_drop_offs_is_named() -> None:
    batch, name = make_raw(n=2), "lpep_dropoff_datetime"
    place = batch.schema.get_field_index(name)
    prepared = prepare(batch.set_column(place, name, pa.array([None, 7.5], pa.float64())))
    assert prepared.unreadable == (
        "column 'lpep_dropoff_datetime' has 7.5, which is no timestamp[us]"
    )
    assert np.isnan(prepared.minutes).all()


def test_a_car_services_ride_without_zones_is_judged_and_comes_out_as_it_was() -> None:
    prepared = prepare(make_raw(3, "fhv", pickup_zone=[None, 74, None], is_shared="N"), "fhv")
    assert prepared.predictable.all()
    assert prepared.eligible.all()
    assert np.isnan(scoring.request_frame(prepared, "fhv")["PUlocationID"]).tolist() == [
        *(True, False, True)
    ]
    rows = scoring.prediction_batch(prepared, np.ones(3), taxi="fhv", model="m")
    assert rows.column("PUlocationID").to_pylist() == [None, 74, None]
    assert not any(rows.column("distance_known").to_pylist())
    tally = MonthTally()
    tally.add(prepared, np.ones(3))
    assert tally.profile.counts["pickup_zone"][[0, 74]].tolist() == [2, 1]


def test_a_shared_ride_or_one_whose_durations_differ_is_predicted_and_counts_in_no_error() -> None:
    batch = make_raw(3, "fhvhv", is_shared=["Y", "N", "N"], trip_seconds=[720, 720, 900])
    prepared = prepare(batch, "fhvhv")
    assert prepared.predictable.all()
    assert prepared.eligible.tolist() == [False, True, False]
    to_be_made = batch.select(["pickup_datetime", "PULocationID", "DOLocationID"])
    known = scoring.prepare_batch(to_be_made, taxi="fhvhv", month=MONTH)
    assert known.eligible.all()
    assert np.isnan(known.minutes).all()


def test_an_app_ride_that_states_its_seconds_and_no_drop_off_counts_in_no_error() -> None:
    batch = make_raw(2, "fhvhv", dropoff_at=[None, "2021-01-15 17:57:00"])
    prepared = prepare(batch, "fhvhv")
    rows = scoring.prediction_batch(prepared, np.ones(2), taxi="fhvhv", model="m").to_pydict()
    assert rows["eligible"] == [False, True]
    assert rows["error"] == [None, -11.0]
    assert clean(batch, taxi="fhvhv", month=MONTH).trips.num_rows == 1


def test_eligibility_at_pickup_does_not_look_at_the_drop_off() -> None:
    eligible_at_pickup = []
    for dropoff_at in (pa.nulls(1), pa.array(["soon"]), pa.array(["2021-01-15 19:57:00"])):
        prepared = prepare(make_raw(1, dropoff_at=dropoff_at))
        eligible_at_pickup += prepared.eligible_at_pickup.tolist()
    assert eligible_at_pickup == [True] * 3
    assert not prepare(make_raw(1, pickup_zone=pa.array(["Harlem"]))).eligible_at_pickup.any()


def test_a_month_that_lacks_a_zone_column_is_refused_by_name() -> None:
    with pytest.raises(TripError, match="Column 'PULocationID' is missing"):
        prepare(make_raw().drop_columns(["PULocationID"]))


def test_every_row_comes_out_in_its_place_judged_or_not() -> None:
    batch = make_raw(n=3, pickup_zone=[1, None, 3])
    predicted = np.array([7.0, np.nan, 9.0])
    rows = scoring.prediction_batch(prepare(batch), predicted, taxi="green", model="models:/taxi/2")
    assert rows.column("PULocationID").to_pylist() == [1, None, 3]
    assert rows.column("prediction").to_pylist() == [7.0, None, 9.0]
    assert rows.column("error").to_pylist() == [-5.0, None, -3.0]
    assert rows.column("model").to_pylist() == ["models:/taxi/2"] * 3


def test_the_frame_has_one_type_per_column_so_that_no_value_needs_a_look() -> None:
    kinds = scoring.request_frame(
        prepare(make_raw(distance_miles=[1.0, None, 2.0])), "green"
    ).dtypes
    assert [kind.kind for kind in kinds] == ["M", "i", "i", "f"]


def test_batches_add_up_to_what_the_whole_month_comes_to() -> None:
    (batch, *_) = month_batches(MONTH, 3_000, 42)
    rng = np.random.default_rng(1)
    predicted = rng.uniform(1, 60, batch.num_rows)
    whole, parts = MonthTally(), MonthTally()
    whole.add(prepare(batch), predicted)
    for start in range(0, 3_000, 700):
        parts.add(prepare(batch.slice(start, 700)), predicted[start : start + 700])
    assert parts.total.scores() == pytest.approx(whole.total.scores())
    assert (parts.n_rows, parts.n_predicted) == (whole.n_rows, whole.n_predicted)
    assert np.array_equal(parts.predictions, whole.predictions)
    assert np.array_equal(parts.profile.pairs, whole.profile.pairs)
    assert [day["n_trips"] for day in parts.daily()] == [day["n_trips"] for day in whole.daily()]
    assert len(whole.daily()) == 31


def test_errors_come_to_scores() -> None:
    errors = ErrorSums()
    assert errors.scores() == {}
    errors.add(np.array([3.0, -1.0]))
    errors.add(np.array([1.0]))
    assert errors.scores() == pytest.approx({"rmse": (11 / 3) ** 0.5, "mae": 5 / 3, "bias": 1.0})


def test_only_trips_that_count_enter_the_errors() -> None:
    batch = make_raw(
        n=3,
        dropoff_at=["2021-01-15 17:55:00", "2021-01-15 23:00:00", None],  # 10 min, hours, unknown
    )
    tally = MonthTally()
    tally.add(prepare(batch), np.full(3, 12.0))
    assert tally.total.n == 1
    scores = {"rmse": 2, "mae": 2, "bias": 2, "rmse_base": 2}
    assert tally.daily() == [{"day": "2021-01-15", "n_trips": 1, **scores}]
    assert tally.profile.n_trips == tally.predictions.sum() == 2


def test_how_far_off_an_estimate_was_is_not_said_of_a_month_without_any_error() -> None:
    tally = MonthTally(estimated=EstimatedRmse(3.0, 2.0, 4.0))
    tally.add(prepare(make_raw(n=2)), np.full(2, 12.0))  # as measured
    assert tally.total.scores()["rmse"] == 0
    assert tally.estimate_error is None


def test_errors_with_a_live_level_stand_beside_the_models_own() -> None:
    tally = MonthTally()
    tally.add(prepare(make_raw(n=2)), np.full(2, 15.0), np.full(2, 13.0))  # 12 measured
    assert (tally.total.scores()["rmse"], tally.base.scores()["rmse"]) == (1, 3)
    assert tally.daily()[0]["rmse_base"] == 3
    assert tally.predictions.tolist() == count_predictions(np.full(2, 15.0)).tolist()


def test_a_row_says_whether_it_had_a_distance_that_can_be() -> None:
    miles = [2.5, 0.0, -1.0, 60.0, 60.1, None]
    prepared = prepare(make_raw(n=6, distance_miles=miles))
    rows = scoring.prediction_batch(prepared, np.full(6, 1.0), taxi="green", model="m")
    known = rows.column("distance_known").to_pylist()
    assert known == [True, False, False, True, False, False]


def test_both_predictions_are_written_where_there_are_two() -> None:
    prepared, base = prepare(make_raw(n=2)), np.array([10.0, 20.0])
    rows = scoring.prediction_batch(prepared, base * 1.1, taxi="green", model="m", base=base)
    assert rows.column("prediction_base").to_pylist() == [10, 20]
    assert rows.column("prediction").to_pylist() == pytest.approx([11, 22])
    assert rows.column("error").to_pylist() == pytest.approx([-1, 10])


def test_how_far_chance_moves_rmse_is_what_resampled_trips_say() -> None:
    random = np.random.default_rng(1)
    error = random.standard_t(8, 400) * 5
    whole, again = ErrorSums(), []
    whole.add(error)
    for _ in range(500):
        resampled = ErrorSums()
        resampled.add(random.choice(error, 400))
        again.append(resampled.scores()["rmse"])
    assert whole.rmse_relative_se() == pytest.approx(
        np.std(again) / whole.scores()["rmse"], rel=0.1
    )
    assert ErrorSums().rmse_relative_se() == 0
