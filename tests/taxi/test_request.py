"""What a model accepts as a trip, and what it refuses."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from taxi import TripError
from taxi.features import FEATURE_SETS
from taxi.model import TripModel, trips_to_frame
from taxi.request import read_frame
from taxi.schema import TAXIS, Trips, has_distance_column
from tests.conftest import make_trips
from tests.taxi.test_model import (
    END,
    MILES,
    MODELS,
    START,
    TIME,
    frame,
    make_linear,
    make_model,
    model,
    trips,
)

__all__ = ["frame", "model", "trips"]


# --- what is accepted


@pytest.mark.parametrize("taxi", TAXIS)
def test_trips_written_as_a_frame_are_read_back(taxi: str, trips: Trips) -> None:
    trips = trips if has_distance_column(taxi) else trips.without_distance()
    found = read_frame(trips_to_frame(trips, taxi), taxi)
    for column in ("pickup_at", "pickup_zone", "dropoff_zone", "distance_miles"):
        values = getattr(found, column)
        assert values.dtype == getattr(trips, column).dtype, column
        assert np.array_equal(values, getattr(trips, column), equal_nan=column != "pickup_at")
    assert np.isnan(found.trip_minutes).all()


def test_a_frame_is_answered_as_its_trips_are(
    model: TripModel, frame: pd.DataFrame, trips: Trips
) -> None:
    assert np.array_equal(model.answer(frame), model.predict(trips))


@pytest.mark.parametrize(
    "sent",
    [
        lambda times: times.astype(str),
        lambda times: times.dt.strftime("%Y-%m-%dT%H:%M:%S"),
        lambda times: times.astype("datetime64[ns]"),
        lambda times: times.astype("datetime64[s]"),
        lambda times: times.dt.tz_localize("America/New_York"),
        lambda times: times.dt.tz_localize("America/New_York").dt.tz_convert("UTC"),
        lambda times: times.dt.tz_localize("America/New_York").dt.tz_convert("UTC").astype(str),
        lambda times: pd.Series(list(times.dt.to_pydatetime()), dtype=object),
    ],
    ids=["text", "iso", "ns", "s", "new_york", "utc", "utc_text", "datetimes"],
)
def test_times_may_come_as_text_or_timestamps_of_any_unit_or_zone(
    sent: Callable[[pd.Series], pd.Series], frame: pd.DataFrame, trips: Trips
) -> None:
    found = read_frame(frame.assign(**{TIME: sent(frame[TIME])}), "green")
    assert found.pickup_at.dtype == "M8[us]"
    assert np.array_equal(found.pickup_at, trips.pickup_at)


def test_times_of_another_zone_become_those_of_new_york_summer_or_winter() -> None:
    times = ["2021-01-15T22:45:00Z", "2021-07-15T21:45:00Z"]
    frame = trips_to_frame(make_trips(2), "green").assign(**{TIME: times})
    found = read_frame(frame, "green").pickup_at.astype("M8[m]").astype(str).tolist()
    assert found == ["2021-01-15T17:45", "2021-07-15T17:45"]


@pytest.mark.parametrize("kind", [int, "int64", "int16", "float64", "Int64", str, object])
def test_ids_may_come_as_numbers_or_text(
    kind: object, model: TripModel, frame: pd.DataFrame
) -> None:
    wanted = model.answer(frame)
    sent = frame.astype({START: kind, END: kind})
    assert np.array_equal(model.answer(sent), wanted)


@pytest.mark.parametrize("kind", [str, "float64", "Float64", object])
def test_distances_may_come_as_numbers_or_text(
    kind: object, model: TripModel, frame: pd.DataFrame
) -> None:
    assert np.array_equal(model.answer(frame.astype({MILES: kind})), model.answer(frame))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_distance_may_be_missing_in_a_row_or_altogether(
    missing: object, model: TripModel, frame: pd.DataFrame, trips: Trips
) -> None:
    unknown = replace(trips, distance_miles=np.full(len(trips), np.nan))
    wanted = model.predict(unknown)
    assert not np.array_equal(wanted, model.predict(trips))
    assert np.array_equal(model.answer(frame.drop(columns=MILES)), wanted)
    assert np.array_equal(model.answer(frame.assign(**{MILES: missing})), wanted)


def test_other_columns_their_order_and_the_index_do_not_matter(
    model: TripModel, frame: pd.DataFrame
) -> None:
    sent = frame[frame.columns[::-1]].assign(fare_amount=1e9, comment="none", lpep_dropoff=pd.NaT)
    sent.index = pd.Index(range(7, 7 + len(sent)))[::-1]
    assert np.array_equal(model.answer(sent), model.answer(frame))


def test_the_callers_frame_is_left_alone(model: TripModel, frame: pd.DataFrame) -> None:
    before = frame.copy(deep=True)
    model.answer(frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("name", MODELS)
def test_no_rows_are_answered_with_no_minutes(name: str, frame: pd.DataFrame) -> None:
    model = MODELS[name]()
    for empty in (frame.iloc[:0], pd.DataFrame(columns=[TIME, START, END])):
        found = model.answer(empty)
        assert found.shape == (0,)
        assert found.dtype == np.float64


@pytest.mark.filterwarnings("error:invalid value encountered in cast")
@pytest.mark.parametrize("name", FEATURE_SETS)
def test_zones_nobody_knows_are_answered_too(name: str) -> None:
    frame = trips_to_frame(make_trips(4), "green").assign(**{START: [-1, 0, 266, 10**12], END: 265})
    assert np.isfinite(make_model(name).answer(frame)).all()


# --- what is refused


@pytest.mark.parametrize("name", [TIME, START, END])
def test_a_missing_column_is_named_with_those_seen(name: str, frame: pd.DataFrame) -> None:
    with pytest.raises(TripError, match=rf"Column '{name}' is missing. Columns seen: \[.*{MILES}"):
        read_frame(frame.drop(columns=name), "green")


def test_yellow_trips_are_refused_by_a_model_of_green_ones(trips: Trips) -> None:
    with pytest.raises(TripError, match=f"'{TIME}' is missing"):
        read_frame(trips_to_frame(trips, "yellow"), "green")


REFUSED = [
    (TIME, "yesterday"),
    (TIME, "2021-02-31 10:00:00"),
    (TIME, "now"),
    (TIME, "today"),
    (TIME, "2021-01-15"),
    (TIME, "03/04/2021 17:45:00"),
    (TIME, ""),
    (TIME, None),
    (TIME, 20210115),
    (TIME, 1610732700.0),
    (TIME, ["2021-01-15"]),
    (START, "Harlem"),
    (START, ""),
    (START, None),
    (START, 74.5),
    (START, "74.5"),
    (START, np.inf),
    (START, [74]),
    (END, None),
    (END, "nan"),
    (END, -np.inf),
    (MILES, np.inf),
    (MILES, -np.inf),
    (MILES, "inf"),
    (MILES, "far"),
    (MILES, "2,5"),
]


@pytest.mark.parametrize(("column", "value"), REFUSED, ids=str)
def test_a_value_that_cannot_be_judged_is_refused_with_its_row_and_column(
    column: str, value: object
) -> None:
    frame = trips_to_frame(make_trips(4), "green").astype(object)
    frame[column] = pd.Series([frame[column][0]] * 2 + [value, value], dtype=object)
    with pytest.raises(TripError) as refusal:
        read_frame(frame, "green")
    assert f"Row 2, column '{column}': got {value!r}; send a" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("column", "values", "seen"),
    [
        (TIME, np.array([20210115] * 3), "20210115"),
        (TIME, np.array([1.5] * 3), "1.5"),
        (TIME, np.array([True] * 3), "True"),
        (START, np.array([1, 2, 3]) > 1, "False"),
        (START, np.array(["2021-01-15"] * 3, "M8[us]"), "Timestamp('2021-01-15 00:00:00')"),
        (MILES, np.array([5] * 3, "m8[s]"), "Timedelta('0 days 00:00:05')"),
        (MILES, np.array([1j] * 3), "1j"),
    ],
)
def test_a_column_of_the_wrong_type_is_refused_though_pandas_would_count_it(
    column: str, values: np.ndarray, seen: str
) -> None:
    frame = trips_to_frame(make_trips(3), "green").assign(**{column: values})
    with pytest.raises(TripError) as refusal:
        read_frame(frame, "green")
    assert f"Row 0, column '{column}': got {seen}; send a" in str(refusal.value)


def test_times_of_several_zones_are_each_read_by_their_own() -> None:
    times = ["2021-01-15T17:45:00-05:00", "2021-07-15T17:45:00-04:00", "2021-01-15 22:45:00Z"]
    frame = trips_to_frame(make_trips(4), "green").assign(**{TIME: [*times, "2021-01-15 17:45"]})
    found = read_frame(frame, "green").pickup_at.astype("M8[m]").astype(str).tolist()
    assert found == ["2021-01-15T17:45", "2021-07-15T17:45", "2021-01-15T17:45", "2021-01-15T17:45"]


def test_an_answer_that_is_no_number_is_never_given(frame: pd.DataFrame) -> None:
    linear = make_linear()
    linear.estimators[0].coef_[-1] = 1e10  # minutes per mile
    absurd = frame.assign(**{MILES: 1.0})
    absurd.loc[5, MILES] = 1e300
    with pytest.raises(TripError, match="Row 5: the model has no answer"):
        linear.answer(absurd)
    linear.estimators[0].coef_[-1] = 1e308
    plain = {TIME: "2021-03-05 17:45:00", START: 74, END: 75, MILES: 10.0}
    assert linear.answer_plain([plain]) is None  # `answer` is asked, which says so
