import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from taxi import TripError, schema
from taxi.matching import match_columns
from taxi.schema import (
    INPUTS,
    TAXIS,
    TRIPS,
    ZONES,
    input_names,
    input_requirements,
    raw_columns,
    taxis_with_columns,
    to_trips,
    zone_or_0,
)
from tests.conftest import ROOT, make_raw, make_trips, real_month

TEXT = pa.schema([(column.name, pa.string()) for column in raw_columns("green")])
NUMBERS = pa.schema([(column.name, column.type) for column in raw_columns("green")])


def with_type(name: str, kind: pa.DataType) -> pa.Schema:
    return NUMBERS.set(NUMBERS.get_field_index(name), pa.field(name, kind))


@pytest.mark.parametrize("month", ["2021-01", "2023-01"])
def test_columns_of_real_months_are_found_whether_ids_are_text_or_numbers(month: str) -> None:
    found = match_columns(real_month(month).schema, "green")
    assert sorted(column.role for column in found.values()) == sorted(
        ["pickup_at", "dropoff_at", "pickup_zone", "dropoff_zone", "distance_miles"]
    )


@pytest.mark.parametrize("found", [TEXT, NUMBERS], ids=["text", "numbers"])
def test_columns_are_matched_in_the_order_of_the_file(found: pa.Schema) -> None:
    turned = pa.schema(list(found)[::-1])
    matched = match_columns(turned.append(pa.field("ehail_fee", pa.null())), "green")
    assert list(matched) == turned.names
    assert matched["PULocationID"].role == "pickup_zone"


def test_names_are_matched_whatever_their_case_and_stray_spaces() -> None:
    odd = [
        " LPEP_PICKUP_DATETIME",
        "lpep_dropoff_datetime ",
        "pulocationid",
        "DOLOCATIONID",
        "\tTrip_Distance",
    ]
    matched = match_columns(pa.schema([(name, pa.string()) for name in odd]), "green")
    assert [column.name for column in matched.values()] == TEXT.names
    assert list(matched) == odd


@pytest.mark.parametrize("name", TEXT.names)
def test_a_missing_column_is_named_with_those_seen(name: str) -> None:
    left = pa.schema([field for field in NUMBERS if field.name != name])
    with pytest.raises(TripError, match=f"Column '{name}' is missing.*{left.names[-1]}"):
        match_columns(left, "green")


@pytest.mark.parametrize("name", ["\x1b[2J", "\u202egnp", "a\nb", "\x9b31m" * 40])
def test_no_name_of_a_column_in_a_message_is_more_than_its_letters(name: str) -> None:
    other = pa.schema([(seen, pa.string()) for seen in ("plain", name)])
    with pytest.raises(TripError, match="Columns seen: 'plain', ") as refusal:
        match_columns(other, "green")
    assert str(refusal.value).isprintable()


def test_yellow_trips_read_as_green_ones_name_the_parameter_to_change() -> None:
    with pytest.raises(TripError, match=r"'lpep_pickup_datetime' is missing.*-P taxi=yellow"):
        match_columns(make_raw(taxi="yellow").schema, "green")
    with pytest.raises(TripError, match=r"'tpep_pickup_datetime' is missing.*-P taxi=green"):
        match_columns(make_raw(taxi="green").schema, "yellow")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lpep_pickup_datetime", pa.duration("s")),
        ("lpep_dropoff_datetime", pa.float64()),
        ("PULocationID", pa.timestamp("us")),
        ("DOLocationID", pa.bool_()),
        ("trip_distance", pa.list_(pa.float64())),
    ],
)
def test_a_type_that_cannot_hold_the_values_is_named(name: str, kind: pa.DataType) -> None:
    with pytest.raises(TripError) as refusal:
        match_columns(with_type(name, kind), "green")
    assert f"Column {name!r} has type {kind}" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lpep_pickup_datetime", pa.timestamp("ns")),
        ("lpep_pickup_datetime", pa.large_string()),
        ("PULocationID", pa.int64()),
        ("PULocationID", pa.float64()),
        ("trip_distance", pa.float32()),
        ("trip_distance", pa.decimal128(9, 2)),
        ("trip_distance", pa.null()),
        ("trip_distance", pa.float16()),
        ("trip_distance", pa.binary()),
        ("PULocationID", pa.string_view()),
        ("PULocationID", pa.uint64()),
        ("PULocationID", pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_a_type_that_may_hold_the_values_is_taken(name: str, kind: pa.DataType) -> None:
    assert name in match_columns(with_type(name, kind), "green")


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_days_without_a_time_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(TripError, match=r"'lpep_dropoff_datetime' has type date.*give no minutes"):
        match_columns(with_type("lpep_dropoff_datetime", kind), "green")


def test_times_as_whole_numbers_are_taken_where_their_unit_is_stated() -> None:
    name = "lpep_pickup_datetime"
    stated = pa.field(name, pa.int64(), metadata={"unit": "ms"})
    place = NUMBERS.get_field_index(name)
    assert name in match_columns(NUMBERS.set(place, stated), "green")
    with pytest.raises(TripError, match=r"seconds, or milli-, micro- or nanoseconds\?"):
        match_columns(NUMBERS.set(place, stated.with_metadata({"unit": "days"})), "green")
    with pytest.raises(TripError, match=r"has type int64: seconds, or"):
        match_columns(with_type(name, pa.int64()), "green")


@pytest.mark.parametrize("other", ["PULocationID", "pulocationid", " PULocationID "])
@pytest.mark.parametrize("optional_roles", [frozenset(), frozenset({"pickup_zone"})])
def test_a_column_that_is_there_twice_is_refused_by_both_names(
    other: str, optional_roles: frozenset[str]
) -> None:
    twice = NUMBERS.append(pa.field(other, pa.int32()))
    with pytest.raises(TripError, match=f"'PULocationID' is there 2 times: .*, {other!r}"):
        match_columns(twice, "green", optional_roles=optional_roles)


def test_a_column_nobody_reads_may_be_there_twice() -> None:
    twice = pa.schema([*NUMBERS, *[pa.field("extra", pa.string())] * 2])
    assert list(match_columns(twice, "green")) == NUMBERS.names


def test_coordinates_instead_of_zones_are_called_that() -> None:
    names = ["lpep_pickup_datetime", "Lpep_dropoff_datetime", "Pickup_longitude", "Trip_distance"]
    with pytest.raises(TripError, match=r"there are coordinates.* before 2016-07.*source=tlc"):
        match_columns(pa.schema([(name, pa.string()) for name in names]), "green")


# the TLC's own parquet files have these names too, so downloading a file again would not help
YELLOW_2009 = ("Trip_Pickup_DateTime", "Trip_Dropoff_DateTime", "Trip_Distance", "Start_Lon")
SERVICES_2015 = ("Dispatching_base_num", "Pickup_date", "locationID")


@pytest.mark.parametrize(("taxi", "names"), [("yellow", YELLOW_2009), ("fhv", SERVICES_2015)])
def test_columns_of_years_without_trips_that_count_are_told_since_when_there_are_some(
    taxi: str, names: Sequence[str]
) -> None:
    with pytest.raises(TripError, match=f" {TAXIS[taxi].first_month}\\b"):
        match_columns(pa.schema([(name, pa.string()) for name in names]), taxi)


def test_names_that_would_harm_a_terminal_or_fill_it_are_shown_short_and_quoted() -> None:
    names = ["\x1b[2J", "x" * 10**6, *map(str, range(1000))]
    with pytest.raises(TripError) as refusal:
        match_columns(pa.schema([(name, pa.string()) for name in names]), "green")
    assert len(str(refusal.value)) < 1500
    assert str(refusal.value).isprintable()


def test_an_unknown_taxi_is_answered_with_the_known_ones() -> None:
    with pytest.raises(TripError, match=re.escape(f"'blue'. Choose from {sorted(TAXIS)}.")):
        raw_columns("blue")


@pytest.mark.parametrize(("taxi", "prefix"), [("green", "lpep"), ("yellow", "tpep")])
def test_the_columns_of_a_cab_carry_its_prefix(taxi: str, prefix: str) -> None:
    names = [column.name for column in raw_columns(taxi)]
    assert names[:2] == [f"{prefix}_{end}_datetime" for end in ("pickup", "dropoff")]


@pytest.mark.parametrize("taxi", TAXIS)
def test_what_people_call_a_trip_says_it_of_one_and_of_many(taxi: str) -> None:
    about = TAXIS[taxi]
    assert about.plural == f"{about.singular.split(' ', 1)[1]}s"


@pytest.mark.parametrize("taxi", TAXIS)
def test_each_kind_of_trips_has_a_row_in_the_table_that_people_read(taxi: str) -> None:
    assert f"\n| `{taxi}` | " in (ROOT / "docs/trips.md").read_text()


def make_table() -> pa.Table:
    rows = {
        "pickup_at": np.array(["2021-01-01T00:00:01", "2021-01-02"], "M8[us]"),
        "pickup_zone": [1, 2],
        "dropoff_zone": [3, 4],
        "distance_miles": [None, 2.5],
        "trip_minutes": [5.0, 6.0],
    }
    return pa.table(rows, schema=TRIPS)


def test_a_table_becomes_arrays_of_the_stated_types() -> None:
    trips = to_trips(make_table())
    assert trips.pickup_at.dtype == "M8[us]"
    assert trips.pickup_zone.dtype == trips.dropoff_zone.dtype == np.int32
    assert trips.trip_minutes.tolist() == [5, 6]
    assert np.array_equal(trips.distance_miles, [np.nan, 2.5], equal_nan=True)
    assert len(trips) == 2


def test_batches_of_trips_are_the_trips_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BATCH_ROWS", 3)
    trips = make_trips(7, trip_minutes=range(1, 8))
    cut = [part.trip_minutes.tolist() for part in trips.batches()]
    assert cut == [[1, 2, 3], [4, 5, 6], [7]]
    assert [len(part) for part in make_trips(0).batches()] == [0]


def test_trips_are_read_batch_by_batch_as_they_were_written() -> None:
    wanted = make_trips(7, trip_minutes=range(1, 8), distance_miles=[1, np.nan, 3, 4, 5, 6, np.nan])
    columns = {name: pa.array(getattr(wanted, name), from_pandas=True) for name in TRIPS.names}
    table = pa.table(columns, schema=TRIPS)
    read = schema.read_trips(table.to_batches(max_chunksize=3), 7)
    for name in TRIPS.names:
        found, there = getattr(read, name), getattr(wanted, name)
        assert (found.dtype, found.tobytes()) == (there.dtype, there.tobytes())


@pytest.mark.parametrize(
    ("rows", "zones"),
    [
        (np.array([2, 0]), [12, 10]),
        (np.array([1, 1]), [11, 11]),
        (np.array([False, True, True]), [11, 12]),
        (np.array([], int), []),
    ],
    ids=["by index", "twice", "by mask", "none"],
)
def test_taking_rows_keeps_the_order_asked_for(rows: np.ndarray, zones: list[int]) -> None:
    trips = make_trips(pickup_zone=[10, 11, 12], trip_minutes=[10, 11, 12])
    taken = trips.take(rows)
    assert taken.pickup_zone.tolist() == taken.trip_minutes.tolist() == zones
    assert len(taken) == len(zones)
    assert len(trips) == 3


# --- what a model reads


@pytest.mark.parametrize("taxi", TAXIS)
def test_a_model_reads_what_is_known_at_pickup_and_only_that(taxi: str) -> None:
    names = input_names(taxi)
    assert list(names) == list(input_requirements(taxi))
    assert not {"dropoff_at", "trip_seconds", "is_shared"} & set(names)
    roles = {column.name: column.role for column in raw_columns(taxi)}
    there = [role for role in INPUTS if role in roles.values()]
    assert [roles[name] for name in names.values()] == there


def test_only_where_zones_are_mostly_missing_a_caller_may_leave_them_out() -> None:
    needed = {
        taxi: [role for role, must in input_requirements(taxi).items() if must] for taxi in TAXIS
    }
    zones = {taxi: [] if about.zones_are_optional else [*ZONES] for taxi, about in TAXIS.items()}
    assert needed == {taxi: ["pickup_at", *zones[taxi]] for taxi in TAXIS}


@pytest.mark.parametrize("taxi", TAXIS)
def test_the_taxis_that_columns_may_be_of_are_found_whatever_their_case(taxi: str) -> None:
    # files of both have the same times and zones, and one of them need have no more
    also = {"fhv": {"fhvhv"}, "fhvhv": {"fhv"}}
    told = taxis_with_columns([f" {column.name.upper()}" for column in raw_columns(taxi)])
    assert {*told} == {taxi, *also.get(taxi, ())}, "name the others that its columns may be of"


def test_columns_of_no_taxi_or_of_two_cabs_name_none_or_both() -> None:
    assert taxis_with_columns([]) == []
    assert taxis_with_columns(["PULocationID", "lpep_dropoff_datetime"]) == []
    both = [column.name for taxi in ("green", "yellow") for column in raw_columns(taxi)]
    assert taxis_with_columns(both) == ["green", "yellow"]


# --- spellings of the years


# column names of real files; other columns do not matter
APP_2019 = "hvfhs_license_num dispatching_base_num pickup_datetime dropoff_datetime PULocationID"
APP_2019 += " DOLocationID SR_Flag"
APP_2023 = "request_datetime on_scene_datetime pickup_datetime dropoff_datetime PULocationID"
APP_2023 += (
    " DOLocationID trip_miles trip_time shared_request_flag shared_match_flag wav_match_flag"
)
SERVICE_2017 = "Dispatching_base_num Pickup_DateTime DropOff_datetime PUlocationID DOlocationID"
SERVICE_2018 = "Pickup_DateTime DropOff_datetime PUlocationID DOlocationID SR_Flag"
SERVICE_2020 = (
    "dispatching_base_num pickup_datetime dropoff_datetime PULocationID DOLocationID SR_Flag"
)
SERVICE_2021 = "pickup_datetime dropOff_datetime PUlocationID DOlocationID SR_Flag"
ENDS = ["pickup_at", "dropoff_at", "pickup_zone", "dropoff_zone"]


@pytest.mark.parametrize(
    ("taxi", "names", "more"),
    [
        ("fhvhv", APP_2019, ["is_shared"]),
        ("fhvhv", APP_2023, ["distance_miles", "trip_seconds", "is_shared"]),
        ("fhv", SERVICE_2017, []),
        ("fhv", SERVICE_2018, ["is_shared"]),
        ("fhv", SERVICE_2020, ["is_shared"]),
        ("fhv", SERVICE_2021, ["is_shared"]),
    ],
)
def test_columns_are_found_as_the_years_spell_them(taxi: str, names: str, more: list[str]) -> None:
    found = match_columns(pa.schema([(name, pa.string()) for name in names.split()]), taxi)
    assert [column.role for column in found.values()] == ENDS + more


def test_what_older_files_have_in_a_columns_place_is_read_only_without_it() -> None:
    both = pa.schema([(name, pa.string()) for name in f"{APP_2023} SR_Flag".split()])
    roles = {column.role: name for name, column in match_columns(both, "fhvhv").items()}
    assert roles["is_shared"] == "shared_match_flag"


def test_a_file_that_may_be_of_another_taxi_names_it() -> None:
    of_apps = pa.schema([(name, pa.string()) for name in APP_2023.split()])
    with pytest.raises(TripError, match=r"pass -P taxi=fhvhv or fhv\.$"):
        match_columns(of_apps, "green")
    *some, last = (taxi for taxi in TAXIS if taxi != "fhvhv")
    with pytest.raises(TripError, match=rf"pass -P taxi={', '.join(some)} or {last}\.$"):
        match_columns(pa.schema([("pickup_datetime", pa.string())]), "fhvhv")


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_zone_ids_the_tlc_does_not_have_become_0_and_the_type_stays(kind: type) -> None:
    zones = zone_or_0(np.array([-7, 0, 1, 265, 266, 2**31 - 1], kind))
    assert zones.tolist() == [0, 0, 1, 265, 0, 0]
    assert zones.dtype == kind
