import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from taxi import TripError, features, simulation
from taxi.city import City
from taxi.columns import Columns
from taxi.features import (
    ANY_DISTANCE_FEATURES,
    FEATURE_SETS,
    FEATURES,
    FULL_WITH_CITY,
    OWN_DISTANCE_FEATURES,
    DenseFeatures,
    Encoder,
)
from taxi.model import trips_to_frame
from taxi.request import read_frame
from taxi.schema import Trips
from taxi.zones import OutOfFold
from tests.conftest import make_trips, random_trips, simulated_trips

# of January 2021, which has a school holiday but no recess
TRAIN, VALID = random_trips(1_500, seed=10), random_trips(400, seed=11, n_zones=60)
CITY = simulation.simulated_zones(42)
# every set as it is without a city, and the one that the set `full` becomes with a city
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
    """Return all contents of a matrix as bytes, including explicit zeros of a sparse one."""
    if isinstance(matrix, csr_matrix):
        return b"".join(part.tobytes() for part in (matrix.data, matrix.indices, matrix.indptr))
    return matrix.tobytes()


def columns_of(trips: Trips, *, is_train: bool = False) -> Columns:
    """Return the columns that every feature can be computed from."""
    encoder = ENCODERS["full of the city"]
    out_of_fold = OutOfFold(trips) if is_train else None
    return Columns(trips, encoder.tables, encoder.around, out_of_fold=out_of_fold)


def both_ways(name: str, trips: Trips) -> list[bytes]:
    """Fit on some trips, and encode them as train rows and as new rows."""
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
    # a set uses it, or the fit adds it if the train months have values for it
    assert name in features.CONDITIONAL_FEATURES or any(name in names for names in SETS.values())


@pytest.mark.parametrize("name", ["compact", "full", "full of the city"])
def test_dense_matrices_are_float32_with_a_column_per_name(name: str) -> None:
    for matrix in (ENCODERS[name].transform_train(TRAIN), ENCODERS[name].transform(TRAIN)):
        assert matrix.dtype == np.float32
        assert matrix.shape == (len(TRAIN), len(ENCODERS[name].names))
    assert tuple(ENCODERS[name].names) == SETS[name]


def test_compact_features_are_never_missing_for_a_trip_without_distance() -> None:
    # sklearn's forests and its older boosters refuse missing values
    for trips in (TRAIN, VALID, ODD):
        assert np.isfinite(ENCODERS["compact"].transform(trips)).all()
    assert np.isfinite(ENCODERS["compact"].transform_train(TRAIN)).all()


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
    assert moved == OWN_DISTANCE_FEATURES & {*SETS[name]}, (
        "OWN_DISTANCE_FEATURES is what it is told by"
    )


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
    """Encode trips, with a number in place of missing values."""
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
    assert not ANY_DISTANCE_FEATURES & set(encoder.names)
    assert np.isfinite(matrix).all()
    varied = [name for name, column in zip(encoder.names, matrix.T, strict=True) if np.ptp(column)]
    assert len(varied) > (18 if city else 7)
    # one distance is enough to learn from
    some = replace(of_services, distance_miles=np.where(np.arange(len(of_services)), np.nan, 2.5))
    of_full = {*FEATURE_SETS["full"]}
    assert set(features.fit_encoder("full", some).names) >= ANY_DISTANCE_FEATURES & of_full


@pytest.mark.parametrize("name", SETS)
def test_changing_every_duration_changes_no_feature(name: str) -> None:
    without_minutes = replace(TRAIN, trip_minutes=TRAIN.trip_minutes[::-1] * 3)
    unknown = replace(TRAIN, trip_minutes=np.full(len(TRAIN), np.nan))
    wanted = both_ways(name, TRAIN)
    assert both_ways(name, without_minutes) == wanted
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
    # seconds reveal how a record was made: automatic ones differ from those typed in
    minute = TRAIN.pickup_at.astype("M8[m]").astype("M8[us]")
    seconds = np.random.default_rng(0).integers(0, 60_000_000, len(TRAIN)).astype("m8[us]")
    odd, even = (replace(TRAIN, pickup_at=minute + extra) for extra in (seconds, seconds * 0))
    assert both_ways(name, odd) == both_ways(name, even)


@pytest.mark.parametrize("name", SETS)
def test_fares_and_the_dropoff_time_change_nothing(name: str) -> None:
    frame = trips_to_frame(VALID, "green")
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
    # precondition of the test above: there are some
    assert np.isnan(ENCODERS["full"].tables.pair_miles).any()
    assert np.isnan(ENCODERS["full"].tables.position).any()
    assert np.isnan(ENCODERS["full"].transform(ODD)).any()
