import json
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import Lasso

from taxi import TripError, columns, features, simulation
from taxi.city import City, make_city
from taxi.columns import Columns
from taxi.features import (
    FEATURE_SETS,
    FEATURES,
    FULL_WITH_CITY,
    OF_ANY_DISTANCE,
    OF_OWN_DISTANCE,
    DenseFeatures,
    Encoder,
)
from taxi.model import write_frame
from taxi.request import read_frame
from taxi.schema import Trips
from taxi.zones import OutOfFold
from tests.conftest import make_trips, random_trips, simulated_trips

# of January 2021, which has a recess of no day beside its holiday
TRAIN, VALID = random_trips(1_500, seed=10), random_trips(400, seed=11, n_zones=60)
CITY = simulation.simulated_zones(42)
# every set as it is without a city, and the one that another comes of where there is one
SETS = {**FEATURE_SETS, "full of the city": FULL_WITH_CITY}


def fit(name: str, trips: Trips) -> Encoder:
    """Fit the encoder of one of SETS."""
    if name == "full of the city":
        return features.fit_encoder("full", trips, CITY)
    return features.fit_encoder(name, trips)


ENCODERS = {name: fit(name, TRAIN) for name in SETS}
ODD = make_trips(
    8,
    pickup_zone=[264, 265, 0, -4, 9_999, 250, 1, 2**31 - 1],
    dropoff_zone=[1, 264, 265, 3, -(2**31), 251, 0, 2**31 - 1],
    distance_miles=[np.nan, 0, -2, 1e300, 5, np.nan, 60, 61],
)


def to_bytes(matrix: np.ndarray | csr_matrix) -> bytes:
    """Give everything a matrix holds, explicit zeros of a sparse one included."""
    if isinstance(matrix, csr_matrix):
        return b"".join(part.tobytes() for part in (matrix.data, matrix.indices, matrix.indptr))
    return matrix.tobytes()


def columns_of(trips: Trips, *, is_train: bool = False) -> Columns:
    """Give what every feature can be computed of."""
    encoder = ENCODERS["full of the city"]
    out_of_fold = OutOfFold(trips) if is_train else None
    return Columns(trips, encoder.tables, encoder.around, out_of_fold=out_of_fold)


def both_ways(name: str, trips: Trips) -> list[bytes]:
    """Fit on some trips and encode them as train rows and as new ones."""
    encoder = fit(name, trips)
    return [to_bytes(encoder.transform_train(trips)), to_bytes(encoder.transform(trips))]


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_is_a_number_or_missing_for_every_trip(name: str, is_train: bool) -> None:
    for trips in (TRAIN, VALID, ODD, TRAIN.take(np.arange(0))):
        values = FEATURES[name](columns_of(trips, is_train=is_train))
        assert values.shape == (len(trips),)
        assert not np.isinf(values).any()
    values = FEATURES[name](columns_of(TRAIN, is_train=is_train))
    n_least = 1 if name == "years_ago" else 2  # one month has one age
    assert len(np.unique(values[~np.isnan(values)])) >= n_least


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_says_what_it_is(name: str) -> None:
    assert FEATURES[name].__doc__
    # a set uses it, or the fit adds it where the train months hold what it tells
    assert name in features.ON_OCCASION or any(name in names for names in SETS.values())


@pytest.mark.parametrize("name", ["compact", "full", "full of the city"])
def test_dense_matrices_are_float32_with_a_column_per_name(name: str) -> None:
    for matrix in (ENCODERS[name].transform_train(TRAIN), ENCODERS[name].transform(TRAIN)):
        assert matrix.dtype == np.float32
        assert matrix.shape == (len(TRAIN), len(ENCODERS[name].names))
    assert tuple(ENCODERS[name].names) == SETS[name]


def test_compact_features_are_never_missing_for_a_trip_without_distance() -> None:
    # sklearn's forests and boosters of old refuse missing values
    for trips in (TRAIN, VALID, ODD):
        assert np.isfinite(ENCODERS["compact"].transform(trips)).all()
    assert np.isfinite(ENCODERS["compact"].transform_train(TRAIN)).all()


# --- what each feature says


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
    # Sunday, Martin Luther King Jr. Day, Tuesday; Christmas of a year that no month is from yet
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
    assert np.isfinite(row["dropoff_uptown"]).all()  # an unknown zone is put in the middle


@pytest.mark.parametrize("name", ["course", "compact"])
def test_a_city_changes_nothing_of_the_smaller_sets(name: str) -> None:
    encoder = features.fit_encoder(name, TRAIN, CITY)
    assert json.dumps(encoder.state()) == json.dumps(ENCODERS[name].state())
    assert to_bytes(encoder.transform(VALID)) == to_bytes(ENCODERS[name].transform(VALID))


@pytest.mark.parametrize("name", ["compact", "full", "full of the city"])
def test_the_columns_of_the_distance_are_those_that_it_changes(name: str) -> None:
    other = replace(VALID, distance_miles=np.full(len(VALID), 7.77))
    changed = (encoded(name, VALID) != encoded(name, other)).any(axis=0)
    moved = {column for column, moves in zip(SETS[name], changed, strict=True) if moves}
    assert moved == OF_OWN_DISTANCE & {*SETS[name]}, "OF_OWN_DISTANCE is what it is told by"


@pytest.mark.parametrize("name", ["compact", "full", "full of the city"])
def test_a_matrix_with_distances_hidden_is_that_of_the_trips_without_them(name: str) -> None:
    encoder = ENCODERS[name]
    assert isinstance(encoder, DenseFeatures)
    matrix = encoder.transform(VALID)
    before = matrix.copy()
    wanted = encoder.transform(VALID.without_distance())
    assert np.array_equal(encoder.hide_distance(matrix, VALID), wanted, equal_nan=True)
    assert np.array_equal(matrix, before, equal_nan=True)


def encoded(name: str, trips: Trips) -> np.ndarray:
    """Encode trips, a number for what is missing."""
    return np.nan_to_num(ENCODERS[name].transform(trips), nan=-99)


def test_a_missing_distance_is_filled_by_the_pair_else_by_the_two_zones() -> None:
    train = make_trips(
        4, pickup_zone=[1, 1, 3, 3], dropoff_zone=[2, 2, 4, 4], distance_miles=[2, 4, 10, 12]
    )
    encoder = features.fit_encoder("compact", train)
    new = make_trips(3, pickup_zone=[1, 1, 200], dropoff_zone=[2, 4, 201], distance_miles=np.nan)
    # a pair's median; the mean of zone medians 3 and 11; the median of all trips
    assert encoder.transform(new)[:, 0].tolist() == [3, 7, 7]


# --- leaks


@pytest.mark.parametrize("city", [None, CITY])
def test_without_any_distance_no_column_is_made_of_distances_and_none_is_missing(
    city: City | None,
) -> None:
    of_services = simulated_trips("2021-01", taxi="fhv")
    encoder = features.fit_encoder("full", of_services, city)
    matrix = encoder.transform_train(of_services)
    assert {"pickup_zone", "minute_of_day", "pair_trips"} <= set(encoder.names)
    assert not OF_ANY_DISTANCE & set(encoder.names)
    assert np.isfinite(matrix).all()
    varied = [name for name, column in zip(encoder.names, matrix.T, strict=True) if np.ptp(column)]
    assert len(varied) > (18 if city else 7)
    # a single distance is one to learn from
    some = replace(of_services, distance_miles=np.where(np.arange(len(of_services)), np.nan, 2.5))
    of_full = {*FEATURE_SETS["full"]}
    assert set(features.fit_encoder("full", some).names) >= OF_ANY_DISTANCE & of_full


@pytest.mark.parametrize("name", SETS)
def test_changing_every_duration_changes_no_feature(name: str) -> None:
    blind = replace(TRAIN, trip_minutes=TRAIN.trip_minutes[::-1] * 3)
    unknown = replace(TRAIN, trip_minutes=np.full(len(TRAIN), np.nan))
    wanted = both_ways(name, TRAIN)
    assert both_ways(name, blind) == wanted
    assert both_ways(name, unknown) == wanted


@pytest.mark.parametrize("name", SETS)
def test_a_rows_own_duration_never_reaches_its_features(name: str) -> None:
    wanted = both_ways(name, TRAIN)
    for row in (0, 7, len(TRAIN) - 1):
        minutes = TRAIN.trip_minutes.copy()
        minutes[row] = 1e6
        assert both_ways(name, replace(TRAIN, trip_minutes=minutes)) == wanted


@pytest.mark.parametrize("name", SETS)
def test_encoding_other_trips_leaves_what_was_fitted_untouched(name: str) -> None:
    encoder = fit(name, TRAIN)
    state, train = json.dumps(encoder.state()), to_bytes(encoder.transform_train(TRAIN))
    for trips in (VALID, ODD, VALID.take(np.arange(3))):
        encoder.transform(trips)
    assert json.dumps(encoder.state()) == state
    assert to_bytes(encoder.transform_train(TRAIN)) == train


@pytest.mark.parametrize("name", SETS)
def test_a_trip_is_encoded_the_same_alone_and_among_others(name: str) -> None:
    encoder = ENCODERS[name]
    whole = encoder.transform(VALID)
    for row in (0, 5, 399):
        alone = encoder.transform(VALID.take(np.array([row])))
        assert to_bytes(alone) == to_bytes(whole[row : row + 1])


@pytest.mark.parametrize("name", SETS)
def test_seconds_of_the_pickup_change_nothing(name: str) -> None:
    # they tell the computer that wrote the record: automatic ones differ from those typed in
    minute = TRAIN.pickup_at.astype("M8[m]").astype("M8[us]")
    seconds = np.random.default_rng(0).integers(0, 60_000_000, len(TRAIN)).astype("m8[us]")
    odd, even = (replace(TRAIN, pickup_at=minute + extra) for extra in (seconds, seconds * 0))
    assert both_ways(name, odd) == both_ways(name, even)


@pytest.mark.parametrize("name", SETS)
def test_fares_and_the_dropoff_time_change_nothing(name: str) -> None:
    frame = write_frame(VALID, "green")
    wanted = to_bytes(ENCODERS[name].transform(read_frame(frame, "green")))
    known_after = ["fare_amount", "tip_amount", "total_amount", "lpep_dropoff_datetime"]
    for value in (0.0, 1e9, None, "much"):
        priced = frame.assign(**dict.fromkeys(known_after, value))
        assert to_bytes(ENCODERS[name].transform(read_frame(priced, "green"))) == wanted


@pytest.mark.parametrize("name", SETS)
def test_encoding_leaves_the_trips_alone(name: str) -> None:
    trips = random_trips(100, seed=12)
    both_ways(name, trips)
    for column, values in vars(random_trips(100, seed=12)).items():
        assert values.tobytes() == getattr(trips, column).tobytes(), column


def test_a_train_rows_own_distance_does_not_reach_what_is_said_of_its_pair() -> None:
    trips = random_trips(300, seed=13, n_zones=8)
    changed = replace(
        trips, distance_miles=np.where(np.arange(300) == 200, 17.3, trips.distance_miles)
    )
    before, after = (
        features.fit_encoder("full", t).transform_train(t)[200] for t in (trips, changed)
    )
    moved = set(np.array(FEATURE_SETS["full"])[(before != after) & ~np.isnan(after)])
    assert {"distance_miles", "crookedness"} <= moved
    of_others = {"pair_trips", "pickup_trips", "dropoff_trips"}
    assert not moved & (of_others | {"pickup_zone", "dropoff_zone", "hour", "traffic_weekday"})


# --- odd trips


@pytest.mark.parametrize("name", SETS)
def test_unseen_and_impossible_zones_are_encoded_without_failing(name: str) -> None:
    matrix = ENCODERS[name].transform(ODD)
    assert matrix.shape == (len(ODD), len(ENCODERS[name].names))
    if name != "course":
        assert not np.isinf(matrix).any()


def test_an_unseen_pair_has_no_trips() -> None:
    encoder = features.fit_encoder("full", make_trips(3))
    row = dict(zip(encoder.names, encoder.transform(make_trips(1, dropoff_zone=9))[0], strict=True))
    assert row["pair_trips"] == row["dropoff_trips"] == 0
    assert row["pickup_trips"] == 3


def test_zone_ids_the_tlc_does_not_have_are_all_the_same_unknown_zone() -> None:
    ids = [0, -1, 266, 9_999, 2**31 - 1]
    matrix = ENCODERS["full"].transform(make_trips(5, pickup_zone=ids))
    assert len({row.tobytes() for row in matrix}) == 1


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("n", [1, 2])
def test_encoders_are_fitted_on_a_trip_or_two(name: str, n: int) -> None:
    trips = make_trips(n, distance_miles=np.nan)
    assert fit(name, trips).transform_train(trips).shape[0] == n
    assert fit(name, trips).transform(VALID).shape[0] == len(VALID)


def test_an_unknown_feature_set_is_answered_with_the_known_ones() -> None:
    with pytest.raises(TripError, match=r"Unknown features 'all'.*'compact', 'course', 'full'"):
        features.fit_encoder("all", TRAIN)


# --- state


@pytest.mark.parametrize("name", SETS)
def test_an_encoder_restored_from_json_encodes_the_same_to_the_bit(name: str) -> None:
    encoder = ENCODERS[name]
    restored = features.restore_encoder(json.loads(json.dumps(encoder.state())))
    assert restored.names == encoder.names
    assert to_bytes(restored.transform_train(TRAIN)) == to_bytes(encoder.transform_train(TRAIN))
    for trips in (VALID, ODD, simulated_trips("2021-02")):
        assert to_bytes(restored.transform(trips)) == to_bytes(encoder.transform(trips))
    assert json.dumps(restored.state()) == json.dumps(encoder.state())


def test_an_encoder_that_was_saved_before_it_knew_a_calendar_still_works() -> None:
    state = json.loads(json.dumps(ENCODERS["full"].state()))
    del state["surroundings"]
    state["names"] = ["weekday" if n == "traffic_weekday" else n for n in state["names"]]
    restored = features.restore_encoder(state)
    assert restored.names == state["names"]
    same = [place for place, name in enumerate(state["names"]) if name != "weekday"]
    wanted = ENCODERS["full"].transform(VALID)[:, same]
    assert to_bytes(restored.transform(VALID)[:, same]) == to_bytes(wanted)
    assert set(restored.transform(VALID)[:, state["names"].index("weekday")]) == set(range(7))


def test_a_restored_encoder_needs_neither_the_calendar_nor_shapes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = ENCODERS["full of the city"].state()
    for name in ("holidays", "shapely", "shapefile", "taxi.days", "taxi.city"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    restored = features.restore_encoder(state)
    assert to_bytes(restored.transform(VALID)) == to_bytes(
        ENCODERS["full of the city"].transform(VALID)
    )


def test_a_restored_table_holds_its_missing_values() -> None:
    # a condition of the test above: there are some
    assert np.isnan(ENCODERS["full"].tables.pair_miles).any()
    assert np.isnan(ENCODERS["full"].tables.position).any()
    assert np.isnan(ENCODERS["full"].transform(ODD)).any()


# --- the course's encoding


def course_dicts(trips: Trips) -> list[dict]:
    """Write trips as the course does: dicts of the pair as text and the distance."""
    rows = zip(trips.pickup_zone, trips.dropoff_zone, trips.distance_miles, strict=True)
    return [{"PU_DO": f"{pu}_{do}", "trip_distance": miles} for pu, do, miles in rows]


@pytest.mark.parametrize("source", ["random", "simulated"])
def test_the_pair_one_hot_equals_sklearns_dict_vectorizer(source: str) -> None:
    if source == "random":
        train, valid = (
            replace(t, distance_miles=np.abs(np.nan_to_num(t.distance_miles)))
            for t in (TRAIN, VALID)
        )
    else:
        train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    vectorizer, encoder = DictVectorizer(), features.fit_encoder("course", train)
    wanted = vectorizer.fit_transform(course_dicts(train))
    assert encoder.names == vectorizer.get_feature_names_out().tolist()
    assert abs(encoder.transform_train(train) - wanted).max() == 0
    new = vectorizer.transform(course_dicts(valid))
    assert new[:, :-1].sum() < len(valid)  # some pairs are unseen
    assert abs(encoder.transform(valid) - new).max() == 0


def test_a_pair_of_impossible_zones_sets_no_column_of_another_pair() -> None:
    assert ENCODERS["course"].transform(ODD)[:, :-1].sum() == 0


def test_the_pair_one_hot_is_taken_by_lasso() -> None:
    matrix = ENCODERS["course"].transform_train(TRAIN)
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert np.isfinite(Lasso(alpha=0.1).fit(matrix, TRAIN.trip_minutes).coef_).all()
