from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from taxi.cleaning import (
    REASONS,
    RULES,
    AmbiguousError,
    Cleaned,
    clean,
    count_months,
    drop_reasons,
    first_unreadable,
    month_bounds,
)
from taxi.schema import TAXIS, TRIPS, raw_columns
from taxi.values import read_times
from tests.conftest import ROOT, make_raw, real_month

START = datetime(2021, 1, 15, 17, 45)
MINUTE = timedelta(minutes=1)


def cleaned(batch: pa.RecordBatch, month: str = "2021-01", taxi: str = "green") -> Cleaned:
    return clean(batch, taxi=taxi, month=month)


def counted(taxi: str = "green", **wanted: int) -> dict[str, int]:
    """Return a full count of a taxi's reasons from counts by each reason's first word."""
    return {reason: wanted.get(reason.split()[0], 0) for reason in drop_reasons(taxi)}


@pytest.mark.parametrize(
    ("spent", "reason"),
    [
        (MINUTE, None),
        (60 * MINUTE, None),
        (timedelta(seconds=59.99), "shorter than 1 min"),
        (timedelta(0), "shorter than 1 min"),
        (-MINUTE, "shorter than 1 min"),
        (60 * MINUTE + timedelta(seconds=1), "longer than 60 min"),
        (timedelta(days=900), "longer than 60 min"),
    ],
)
def test_trips_of_1_to_60_minutes_are_kept_both_ends_in(
    spent: timedelta, reason: str | None
) -> None:
    trips, dropped = cleaned(make_raw(1, pickup_at=START, dropoff_at=START + spent))
    assert dropped == {**counted(), **({reason: 1} if reason else {})}
    assert trips.column("trip_minutes").to_pylist() == ([] if reason else [spent / MINUTE])


@pytest.mark.parametrize(
    ("pickup", "kept"),
    [
        ("2021-01-01T00:00:00", True),
        ("2021-01-31T23:59:59.999999", True),
        ("2020-12-31T23:59:59.999999", False),
        ("2021-02-01T00:00:00", False),
        ("2009-01-01T00:00:00", False),
    ],
)
def test_a_trip_belongs_to_the_month_it_starts_in(pickup: str, kept: bool) -> None:
    start = datetime.fromisoformat(pickup)
    trips, dropped = cleaned(make_raw(1, pickup_at=start, dropoff_at=start + 5 * MINUTE))
    assert trips.num_rows == kept
    assert dropped == counted(pickup=1 - kept)


@pytest.mark.parametrize("role", ["pickup_at", "dropoff_at"])
def test_a_missing_time_is_counted(role: str) -> None:
    trips, dropped = cleaned(make_raw(2, **{role: [None, START]}))
    assert dropped["time missing"] == 1
    assert trips.num_rows + sum(dropped.values()) == 2


@pytest.mark.parametrize("role", ["pickup_zone", "dropoff_zone"])
def test_a_missing_zone_is_counted(role: str) -> None:
    trips, dropped = cleaned(make_raw(2, **{role: [None, 7]}))
    assert dropped == counted(zone=1)
    assert trips.column(role).to_pylist() == [7]


def test_each_reason_is_in_the_table_that_people_read() -> None:
    table = (ROOT / "docs/trips.md").read_text()
    assert [reason for reason in REASONS if reason not in table] == []


def test_each_rule_is_of_a_column_that_some_files_have() -> None:
    read = {column.role for taxi in TAXIS for column in raw_columns(taxi)}
    assert RULES.keys() <= read


def test_a_row_counts_under_the_first_reason_only() -> None:
    everything = {"dropoff_at": None, "pickup_zone": None, "pickup_at": "2001-01-01"}
    assert cleaned(make_raw(1, **everything)).dropped == counted(time=1)
    del everything["dropoff_at"]
    assert cleaned(make_raw(1, **everything)).dropped == counted(zone=1)
    del everything["pickup_zone"]
    assert cleaned(make_raw(1, **everything)).dropped == counted(pickup=1)


@pytest.mark.parametrize("miles", [0.0, -3.0, 178_980.0, None])
def test_an_absurd_or_missing_distance_keeps_its_trip_and_its_value(miles: float | None) -> None:
    assert cleaned(make_raw(1, distance_miles=miles)).trips["distance_miles"].to_pylist() == [miles]


def random_raw(seed: int, n: int = 500) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)

    def with_nulls(values: np.ndarray, share: float = 0.05) -> pa.Array:
        return pa.array(values, mask=rng.random(n) < share)

    pickup = np.datetime64("2020-12-20", "us") + rng.integers(0, 55 * 86_400_000_000, n)
    spent = rng.integers(-60_000_000, 4_000_000_000, n)
    zones = (with_nulls(rng.integers(1, 266, n).astype(np.int32)) for _ in range(2))
    arrays = [with_nulls(pickup), with_nulls(pickup + spent), *zones, with_nulls(rng.random(n))]
    return pa.RecordBatch.from_arrays(arrays, [column.name for column in raw_columns("green")])


def kept_by_hand(row: dict) -> bool:
    pickup, dropoff, *zones = list(row.values())[:4]
    if None in (pickup, dropoff, *zones) or (pickup.year, pickup.month) != (2021, 1):
        return False
    return MINUTE <= dropoff - pickup <= 60 * MINUTE


@pytest.mark.parametrize("seed", range(20))
def test_random_rows_are_kept_as_by_hand_in_their_order_and_all_are_counted(seed: int) -> None:
    batch = random_raw(seed)
    trips, dropped = cleaned(batch)
    assert trips.num_rows + sum(dropped.values()) == batch.num_rows
    wanted = [row for row in batch.to_pylist() if kept_by_hand(row)]
    assert 0 < len(wanted) < batch.num_rows
    assert trips.column("pickup_at").to_pylist() == [row["lpep_pickup_datetime"] for row in wanted]
    assert trips.column("distance_miles").to_pylist() == [row["trip_distance"] for row in wanted]


def test_cleaning_leaves_its_input_alone_and_repeats_itself() -> None:
    batch, same = random_raw(7), random_raw(7)
    first, second = cleaned(batch), cleaned(batch)
    assert batch.equals(same)
    assert first.trips.equals(second.trips)
    assert first.dropped == second.dropped


def test_cleaning_in_pieces_gives_the_same_trips_and_counts() -> None:
    batch = random_raw(3)
    whole, parts = cleaned(batch), [cleaned(batch.slice(at, 70)) for at in range(0, 500, 70)]
    joined = pa.Table.from_batches([part.trips for part in parts])
    assert joined.to_pylist() == whole.trips.to_pylist()
    assert {r: sum(p.dropped[r] for p in parts) for r in drop_reasons("green")} == whole.dropped


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.int16(), pa.float64()])
def test_ids_give_the_same_trips_whatever_their_type(kind: pa.DataType) -> None:
    zones = pa.array([74, 75, 265], pa.int32())
    typed = make_raw(pickup_zone=zones.cast(kind), dropoff_zone=zones.cast(kind))
    wanted = cleaned(make_raw(pickup_zone=zones, dropoff_zone=zones))
    assert cleaned(typed).trips.equals(wanted.trips)


def test_a_file_of_text_gives_the_same_trips_as_one_of_values() -> None:
    batch = make_raw(3, distance_miles=[0.5, None, 3.25])
    texts = [column.cast(pa.string()) for column in batch.columns]
    text = pa.RecordBatch.from_arrays(texts, batch.schema.names)
    assert cleaned(text).trips.equals(cleaned(batch).trips)


def test_nanoseconds_are_cut_off_times() -> None:
    pickups = pa.array(np.array(["2021-01-15T17:45:00.000000999"], "M8[ns]"))
    dropoffs = pa.array(np.array(["2021-01-15T17:46:00.000000001"], "M8[ns]"))
    assert pickups.type == pa.timestamp("ns")
    trips, _ = cleaned(make_raw(1, pickup_at=pickups, dropoff_at=dropoffs))
    assert trips.column("pickup_at").to_pylist() == [START]
    assert trips.column("trip_minutes").to_pylist() == [1.0]


@pytest.mark.parametrize(
    ("role", "name", "bad"),
    [
        ("pickup_at", "lpep_pickup_datetime", "last night"),
        ("dropoff_at", "lpep_dropoff_datetime", "2021-02-31 00:00:00"),
        ("pickup_at", "lpep_pickup_datetime", "2021-01-15"),
        ("pickup_at", "lpep_pickup_datetime", "1610732700"),
        ("pickup_zone", "PULocationID", "Harlem"),
        ("dropoff_zone", "DOLocationID", "74.5"),
        ("dropoff_zone", "DOLocationID", "1" * 400),
        ("distance_miles", "trip_distance", "far"),
    ],
)
def test_text_that_cannot_be_read_is_a_row_with_a_reason_and_named(
    role: str, name: str, bad: str
) -> None:
    good = make_raw(2)
    texts = pa.array([str(good.column(name)[0]), bad])
    batch = make_raw(2, **{role: texts})
    trips, dropped = cleaned(batch)
    assert dropped == counted(unreadable=1)
    assert trips.num_rows == 1
    named = first_unreadable(batch, "green")
    assert named.startswith(f"column {name!r} has {bad[:50]!r}"[:60])
    assert len(named) < 150
    assert first_unreadable(good, "green") == ""


@pytest.mark.parametrize(
    ("missing", "unread", "reason"),
    [
        ("pickup_at", "dropoff_zone", "time"),
        ("dropoff_at", "distance_miles", "time"),
        ("dropoff_at", "pickup_at", "time"),
        ("pickup_zone", "dropoff_zone", "zone"),
    ],
)
def test_what_is_missing_is_the_reason_before_what_nobody_can_read_in_another_column(
    missing: str, unread: str, reason: str
) -> None:
    row = make_raw(1, **{missing: pa.nulls(1), unread: pa.array(["far"])})
    assert cleaned(row).dropped == counted(**{reason: 1})


@pytest.mark.parametrize("zone", [74.5, 3e9, -3e9])
def test_a_zone_is_never_rounded_or_cut(zone: float) -> None:
    trips, dropped = cleaned(make_raw(2, pickup_zone=pa.array([74.0, zone])))
    assert dropped == counted(unreadable=1)
    assert trips.column("pickup_zone").to_pylist() == [74]


@pytest.mark.parametrize("role", ["pickup_zone", "dropoff_zone"])
def test_a_zone_below_1_is_a_row_with_a_reason(role: str) -> None:
    trips, dropped = cleaned(make_raw(5, **{role: [0, -1, -(2**31), 1, 300]}))
    assert dropped == counted(impossible=3)
    assert trips.column(role).to_pylist() == [1, 300]


@pytest.mark.parametrize("miles", [float("inf"), float("-inf"), "inf", "Infinity", "1e400"])
def test_an_infinite_distance_is_none(miles: float | str) -> None:
    trips, dropped = cleaned(make_raw(1, distance_miles=pa.array([miles])))
    assert trips["distance_miles"].to_pylist() == [None]
    assert dropped == counted()


@pytest.mark.parametrize(
    ("offset", "clock"),
    [
        *(("Z", "07:00"), ("-05", "12:00"), ("-0530", "12:30"), ("+15:00", "16:00")),
        *(("+15:01", None), ("-16", None), ("+05:60", None), ("+0575", None)),
    ],
)
def test_a_time_is_read_by_its_offset_where_that_can_be_one(offset: str, clock: str | None) -> None:
    times = [START.isoformat(" "), f"2021-01-15 12:00{offset}"]
    read, unreadable = read_times(pa.array(times))
    if clock is None:
        assert unreadable.tolist() == [False, True]
    else:
        assert unreadable is None
        assert f"{read[1].as_py():%H:%M}" == clock


YEARS = ["0001-01-01", "1677-09-21", "1900-01-01", "2262-04-12", "9999-12-31T23:59:59.999999"]


@pytest.mark.parametrize("year", YEARS)
def test_a_time_of_an_absurd_year_is_a_row_with_a_reason(year: str) -> None:
    then = datetime.fromisoformat(year)
    late = counted(longer=1) if then > START else counted(shorter=1)
    assert cleaned(make_raw(1, dropoff_at=pa.array([then], pa.timestamp("us")))).dropped == late
    outside = counted(pickup=1)
    assert cleaned(make_raw(1, pickup_at=pa.array([then], pa.timestamp("us")))).dropped == outside


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+05:30", "Mars/Olympus"])
def test_no_count_of_any_unit_stops_a_month(unit: str, zone: str | None) -> None:
    ends = pa.array([2**63 - 1, -(2**63), 0, None], pa.int64()).view(pa.timestamp(unit, zone))
    for role in ("pickup_at", "dropoff_at"):
        trips, dropped = cleaned(make_raw(4, **{role: ends}))
        assert (trips.num_rows, sum(dropped.values())) == (0, 4)


@pytest.mark.parametrize(
    ("role", "text", "readings"),
    [
        ("pickup_at", "03/04/2021 17:45", "2021-03-04 (month first) or 2021-04-03 (day first)"),
        ("dropoff_at", "3.4.2021 17:45:00", "2021-03-04 (month first) or 2021-04-03 (day first)"),
        ("pickup_at", "27/01/2021 10:17:31 PM", "written month first or day first"),
        ("pickup_at", "01/01/2021 08:00", "written month first or day first"),
        ("distance_miles", "1,234", "1.234 (a decimal comma) or 1234"),
        ("pickup_zone", "74,0", "74.0 (a decimal comma) or 740"),
    ],
)
def test_a_text_with_two_readings_is_refused_with_its_row_and_both(
    role: str, text: str, readings: str
) -> None:
    with pytest.raises(AmbiguousError) as refusal:
        cleaned(make_raw(3, **{role: pa.array([None, "?", text])}))
    assert refusal.value.row == 2
    assert f"has {text!r}, which may be {readings}. " in str(refusal.value)


def test_the_months_of_pickups_are_counted() -> None:
    pickups = ["2019-01-05 10:00", "2019-01-06 10:00", "2021-01-01 10:00", None]
    assert count_months(make_raw(4, pickup_at=pickups), "green") == {"2019-01": 2, "2021-01": 1}


@pytest.mark.parametrize("taxi", TAXIS)
def test_kept_trips_have_the_columns_and_types_of_the_schema(taxi: str) -> None:
    trips = cleaned(make_raw(2, taxi=taxi), taxi=taxi).trips
    assert trips.schema.equals(TRIPS)
    trips.validate(full=True)
    assert trips.num_rows == 2


# --- rides of apps and car services


@pytest.mark.parametrize(
    ("seconds", "reason", "minutes"),
    [
        (720.0, None, 12.0),
        (780.0, None, 13.0),
        (660.0, None, 11.0),
        (780.1, "durations", None),
        (659.9, "durations", None),
        (0.0, "durations", None),
        (-720.0, "durations", None),
        (1e300, "durations", None),
        (float("nan"), None, 12.0),
        (None, None, 12.0),
    ],
)
def test_the_seconds_an_app_states_are_the_label_where_its_times_agree_to_a_minute(
    seconds: float | None, reason: str | None, minutes: float | None
) -> None:
    trips, dropped = cleaned(make_raw(1, "fhvhv", trip_seconds=[seconds]), taxi="fhvhv")
    assert dropped == counted("fhvhv", **({reason: 1} if reason else {}))
    assert trips.column("trip_minutes").to_pylist() == ([] if reason else [minutes])


def test_the_bounds_of_minutes_hold_for_stated_seconds() -> None:
    ends = ["2021-01-15 17:46:00", "2021-01-15 18:45:00"]
    raw = make_raw(2, "fhvhv", dropoff_at=ends, trip_seconds=[59.0, 3601.0])
    assert cleaned(raw, taxi="fhvhv").dropped == counted("fhvhv", shorter=1, longer=1)


@pytest.mark.parametrize("taxi", ["fhvhv", "fhv"])
@pytest.mark.parametrize(
    ("flags", "n_shared"),
    [
        (["Y", "N", "y", " n ", "", None, "1", "0"], 3),
        (pa.array(["1", "2", "no", "False", "yes", "0.0", "null", "-"]), 3),
        (pa.array([1.0, None, 0.0, float("nan"), 2.0, 0.0, 0.0, 0.0]), 2),
        (pa.array([True, False, None, True, False, False, False, False]), 2),
        (pa.array([1, 0, None, 0, 0, 0, 0, 0], pa.int16()), 1),
        (pa.array(["Y", "N"] * 4).dictionary_encode(), 4),
        (pa.nulls(8), 0),
    ],
)
def test_a_ride_shared_with_others_is_dropped_however_its_flag_is_written(
    taxi: str, flags: object, n_shared: int
) -> None:
    trips, dropped = cleaned(make_raw(8, taxi, is_shared=flags), taxi=taxi)
    assert dropped == counted(taxi, shared=n_shared)
    assert trips.num_rows == 8 - n_shared


def test_a_ride_that_asked_to_be_shared_and_was_not_is_kept_and_so_is_an_accessible_one() -> None:
    raw = make_raw(3, "fhvhv")
    flags = dict.fromkeys(["shared_request_flag", "wav_request_flag", "wav_match_flag"], ["Y"] * 3)
    whole = pa.RecordBatch.from_pydict(dict(zip(raw.schema.names, raw, strict=True)) | flags)
    assert cleaned(whole, taxi="fhvhv").dropped == counted("fhvhv")


def test_old_files_of_apps_are_read_without_what_they_lack() -> None:
    raw = make_raw(2, "fhvhv", is_shared=["1", None])
    old = raw.drop_columns(["trip_miles", "trip_time"]).rename_columns(
        [*raw.schema.names[:4], "SR_Flag"]
    )
    trips, dropped = cleaned(old, taxi="fhvhv")
    assert dropped == counted("fhvhv", shared=1)
    assert trips.column("trip_minutes").to_pylist() == [12.0]
    assert trips.column("distance_miles").to_pylist() == [None]


def test_a_car_services_ride_without_zones_or_distance_is_kept_its_zones_unknown() -> None:
    zones = {"pickup_zone": [None, -1, 0, 74], "dropoff_zone": [75, None, 0, 265]}
    trips, dropped = cleaned(make_raw(4, "fhv", **zones), taxi="fhv")
    assert dropped == counted("fhv")
    assert trips.schema.equals(TRIPS)
    assert trips.column("pickup_zone").to_pylist() == [0, 0, 0, 74]
    assert trips.column("dropoff_zone").to_pylist() == [75, 0, 0, 265]
    assert trips.column("distance_miles").null_count == 4
    unreadable = make_raw(2, "fhv", pickup_zone=pa.array(["Harlem", "74"]))
    assert cleaned(unreadable, taxi="fhv").dropped == counted("fhv", unreadable=1)


def test_a_zone_missing_or_below_1_costs_an_app_ride_its_row() -> None:
    raw = make_raw(3, "fhvhv", pickup_zone=[None, 0, 74])
    assert cleaned(raw, taxi="fhvhv").dropped == counted("fhvhv", zone=1, impossible=1)


def test_a_reason_stands_only_where_files_can_tell_it() -> None:
    assert drop_reasons("green") == drop_reasons("yellow")
    assert set(drop_reasons("fhvhv")) - set(drop_reasons("fhv")) == {"durations at odds"}
    assert set(drop_reasons("fhv")) - set(drop_reasons("green")) == {"shared with other riders"}


def test_no_rows_give_no_trips_and_every_reason_at_zero() -> None:
    trips, dropped = cleaned(make_raw(0))
    assert trips.schema.equals(TRIPS)
    assert trips.num_rows == 0
    assert dropped == counted()


@pytest.mark.parametrize("month", ["2023-01", "2023-12", "2024-02"])
def test_a_month_ends_where_the_next_one_starts(month: str) -> None:
    start, end = month_bounds(month)
    assert f"{start:%Y-%m}" == month
    assert (end.day, end.hour) == (1, 0)
    assert (end - timedelta(seconds=1)).month == start.month


def test_every_kept_trip_of_a_real_month_is_possible() -> None:
    for batch in real_month("2023-02").to_batches():
        trips, dropped = cleaned(batch, month="2023-02")
        minutes = trips.column("trip_minutes").to_numpy()
        assert 1 <= minutes.min() <= minutes.max() <= 60
        months = trips.column("pickup_at").to_numpy().astype("M8[M]")
        assert set(months.astype(str)) == {"2023-02"}
        assert trips.num_rows + sum(dropped.values()) == batch.num_rows
