"""The value of each feature."""

from collections.abc import Callable

import numpy as np
import pytest

from taxi import columns, features
from taxi.city import make_city
from taxi.columns import Columns
from taxi.features import FEATURE_SETS, FEATURES
from tests.conftest import make_trips
from tests.taxi.test_features import ENCODERS, VALID, columns_of, encoded


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distance_miles", 2.5),
        ("pickup_zone", 74),
        ("dropoff_zone", 75),
        ("hour", 17),
        ("traffic_weekday", 4),
        ("minute_of_day", 17 * 60 + 45),
        ("filled_miles", 2.5),
        ("pair_trips", np.log(4)),
        ("pickup_trips", 3),
        ("dropoff_trips", 3),
    ],
)
def test_a_feature_is_what_its_name_says(name: str, value: float) -> None:
    chosen = "full" if name in FEATURE_SETS["full"] else "compact"
    encoder = features.fit_encoder(chosen, make_trips(3, distance_miles=[1, 2, 3]))
    row = encoder.transform(make_trips(1))  # Friday 2021-01-15, 17:45:30, 2.5 miles
    assert row[0, encoder.names.index(name)] == pytest.approx(value)


def test_map_features_are_geometry_on_the_learned_map() -> None:
    # a right triangle with sides of 3, 4 and 5 miles between zones 1, 2 and 3
    sides = {"pickup_zone": [1, 1, 2], "dropoff_zone": [2, 3, 3], "distance_miles": [3, 4, 5]}
    trips = make_trips(3, **sides)
    encoder = features.fit_encoder("full", trips)
    matrix = encoder.transform(trips)
    row = dict(zip(encoder.names, matrix.T, strict=True))
    assert row["straight_miles"] == pytest.approx([3, 4, 5], abs=0.01)
    assert row["crookedness"] == pytest.approx(
        row["distance_miles"] / (row["straight_miles"] + 0.5)
    )
    east, north = (row[f"dropoff_{axis}"] - row[f"pickup_{axis}"] for axis in "xy")
    assert row["bearing"] == pytest.approx(np.arctan2(north, east), abs=1e-5)


@pytest.mark.parametrize(
    ("axis", "place"),
    [
        *(("x", lambda c: c.position[:, 0]), ("y", lambda c: c.position[:, 1])),
        *(
            ("crosstown", lambda c: c.around.place[:, 0]),
            ("uptown", lambda c: c.around.place[:, 1]),
        ),
    ],
)
def test_a_way_goes_from_where_it_begins_past_its_middle_to_where_it_ends(
    axis: str, place: Callable[[Columns], np.ndarray]
) -> None:
    trips = columns_of(VALID.take(VALID.pickup_zone < 40))
    ends = ("pickup", "dropoff", "way", "middle")
    start, end, way, middle = (FEATURES[f"{name}_{axis}"](trips) for name in ends)
    assert np.array_equal(start, place(trips)[trips.pickup], equal_nan=True)
    assert np.array_equal(end, place(trips)[trips.dropoff], equal_nan=True)
    assert way == pytest.approx(end - start, abs=1e-4, nan_ok=True)
    assert middle == pytest.approx((start + end) / 2, abs=1e-4, nan_ok=True)
    assert np.isfinite(way).any()


def test_the_direction_of_travel_is_told_on_the_tlcs_map_too() -> None:
    trips = columns_of(VALID)
    across, up = (FEATURES[f"way_{axis}"](trips) for axis in ("crosstown", "uptown"))
    told = FEATURES["grid_bearing"](trips)
    assert told == pytest.approx(np.arctan2(up, across), abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("year", [1969, 1970, 2000, 2024])
def test_hours_and_weekdays_are_those_of_the_calendar(year: int) -> None:
    days = np.arange(f"{year}-01-01", f"{year}-03-05", dtype="M8[D]")
    trips = make_trips(len(days), pickup_at=days + np.timedelta64(23 * 60 + 59, "m"))
    of_trips = columns_of(trips)
    assert columns.weekday(of_trips).tolist() == [day.weekday() for day in days.tolist()]
    assert set(columns.hour(of_trips)) == {23}
    assert set(columns.minute_of_day(of_trips)) == {1439}


def test_a_holiday_counts_as_a_sunday() -> None:
    # Sunday, Martin Luther King Jr. Day, Tuesday; Christmas as observed in a future year
    times = ["2021-01-17T23:59", "2021-01-18T00:00", "2021-01-19T00:00", "2039-12-26T12:00"]
    matrix = encoded("full", make_trips(4, pickup_at=times))
    row = dict(zip(ENCODERS["full"].names, matrix.T, strict=True))
    assert row["traffic_weekday"].tolist() == [6, 6, 1, 6]


def test_a_column_of_school_days_comes_with_three_days_of_a_recess() -> None:
    # 2023-02: Presidents' Day is on Monday the 20th, the other days until Friday are a recess
    times = [f"2023-02-{day}T08:30" for day in (17, 18, 20, 21, 22, 23)]
    encoder = features.fit_encoder("full", make_trips(6, pickup_at=times))
    school = encoder.transform(make_trips(6, pickup_at=times))[:, encoder.names.index("school_day")]
    assert school.tolist() == [1, 0, 0, 0, 0, 0]
    two_days = features.fit_encoder("full", make_trips(5, pickup_at=times[:5]))
    assert two_days.names == [name for name in encoder.names if name != "school_day"]


def test_trips_of_other_years_are_told_apart_while_training_and_new_ones_are_of_the_latest() -> (
    None
):
    times = [
        f"{month}-15T08:30" for month in ("2021-08", "2021-09", "2022-08", "2022-09", "2023-03")
    ]
    trips = make_trips(5, pickup_at=times)
    encoder = features.fit_encoder("full", trips)
    ago = encoder.names.index("years_ago")
    assert encoder.transform_train(trips)[:, ago].tolist() == [2, 1, 1, 0, 0]
    assert encoder.transform(trips)[:, ago].tolist() == [0, 0, 0, 0, 0]
    one_winter = features.fit_encoder("full", trips.take(slice(3, None)))
    assert one_winter.names == [name for name in encoder.names if name != "years_ago"]


def test_the_tlcs_map_is_turned_so_that_avenues_run_along_an_axis() -> None:
    # two miles up an avenue, then one mile down a street
    angle = np.radians(29)
    up, across = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    places = {1: [180, 40], 2: [180, 40] + 2 * up, 3: [180, 40] + 2 * up + across}
    trips = make_trips(3, pickup_zone=[1, 2, 1], dropoff_zone=[2, 3, 264], distance_miles=2.5)
    encoder = features.fit_encoder("full", trips, make_city({}, places, {}))
    row = dict(zip(encoder.names, encoder.transform(trips).T, strict=True))
    assert row["way_uptown"][:2] == pytest.approx([2, 0], abs=1e-3)
    assert row["way_crosstown"][:2] == pytest.approx([0, 1], abs=1e-3)
    diagonal = [row[f"dropoff_grid_{angle}"] - row[f"pickup_grid_{angle}"] for angle in (45, 135)]
    assert [steps[:2].tolist() for steps in diagonal] == [
        pytest.approx([2 * 0.5**0.5, 0.5**0.5], abs=1e-3),
        pytest.approx([2 * 0.5**0.5, -(0.5**0.5)], abs=1e-3),
    ]
    assert row["air_miles"][:2] == pytest.approx([2, 1], abs=1e-3)
    assert row["detour_miles"][:2] == pytest.approx([0.5, 1.5], abs=1e-3)
    assert np.isfinite(row["dropoff_uptown"]).all()  # an unknown zone is placed in the middle
