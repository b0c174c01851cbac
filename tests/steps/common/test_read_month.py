"""Months in the many forms that people have them in: each gives the trips of the plain file."""

import gzip
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from steps.common.months import find_month, read_month
from storage import StorageError
from taxi import TripError
from taxi.cleaning import clean
from taxi.schema import TRIPS

MONTH = "2021-01"
NAME = f"green_tripdata_{MONTH}"
TIMES, ZONES, MILES = (
    ["lpep_pickup_datetime", "lpep_dropoff_datetime"],
    ["PULocationID", "DOLocationID"],
    "trip_distance",
)


def make_month(n: int = 40) -> pa.Table:
    """Make n trips of January, all of them plausible, at whole seconds."""
    rng = np.random.default_rng(7)
    pickup = np.datetime64("2021-01-01T00:00:00", "us") + np.sort(
        rng.integers(0, 30 * 86_400, n)
    ).astype("m8[s]")
    arrays = [
        pa.array(pickup),
        pa.array(pickup + rng.integers(60, 3_600, n).astype("m8[s]")),
        pa.array(rng.integers(1, 266, n).astype(np.int32)),
        pa.array(rng.integers(1, 266, n).astype(np.int32)),
        pa.array(rng.integers(0, 80, n) / 4),
    ]
    return pa.table(arrays, [*TIMES, *ZONES, MILES])


def trips_of(source: Path, month: str = MONTH, taxi: str = "green") -> pa.Table:
    """Find and clean a month."""
    path = find_month(str(source), taxi, month, Path("nowhere")).path
    parts = read_month(path, taxi, partial(clean, taxi=taxi, month=month))
    return pa.Table.from_batches([part.trips for part in parts], TRIPS)


# --- parquet

Change = Callable[[pa.Table], pa.Table]


def changed(names: list[str], change: Callable[[pa.ChunkedArray], object]) -> Change:
    """Return a function that changes some columns of a table."""

    def of(table: pa.Table) -> pa.Table:
        for name in names:
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, change(table.column(name)))
        return table

    return of


def with_unit(unit: str) -> Change:
    """Return a function that writes times as integers, their unit in the column's metadata."""

    def of(table: pa.Table) -> pa.Table:
        for name in TIMES:
            values = table.column(name).cast(pa.timestamp(unit)).cast(pa.int64())
            field = pa.field(name, pa.int64(), metadata={"unit": unit})
            table = table.set_column(table.schema.get_field_index(name), field, values)
        return table

    return of


def local(zone: str) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    """Return a function that gives the same instants as times in a time zone."""
    return lambda c: pc.assume_timezone(c, "America/New_York").cast(pa.timestamp("us", zone))


PARQUET: dict[str, Change] = {
    "times in s": changed(TIMES, lambda c: c.cast(pa.timestamp("s"))),
    "times in ns": changed(TIMES, lambda c: c.cast(pa.timestamp("ns"))),
    "times of New York": changed(TIMES, local("America/New_York")),
    "times in UTC": changed(TIMES, local("UTC")),
    "times of an offset": changed(TIMES, local("+05:30")),
    "times as text": changed(TIMES, lambda c: c.cast(pa.string())),
    "times as bytes": changed(TIMES, lambda c: c.cast(pa.string()).cast(pa.binary())),
    "times counted in s": with_unit("s"),
    "times counted in ns": with_unit("ns"),
    "ids as dictionary": changed(ZONES, lambda c: c.cast(pa.string()).dictionary_encode()),
    "ids as string_view": changed(ZONES, lambda c: c.cast(pa.string()).cast(pa.string_view())),
    "ids as bytes": changed(ZONES, lambda c: c.cast(pa.string()).cast(pa.large_binary())),
    "ids as 121.0": changed(ZONES, lambda c: c.cast(pa.decimal128(12, 1)).cast(pa.string())),
    "ids as float": changed(ZONES, lambda c: c.cast(pa.float32())),
    "ids as decimal": changed(ZONES, lambda c: c.cast(pa.decimal128(12, 2))),
    "ids as int8 and more": changed(ZONES, lambda c: c.cast(pa.uint64())),
    "miles as decimal": changed([MILES], lambda c: c.cast(pa.decimal128(9, 2))),
    "miles as float32": changed([MILES], lambda c: c.cast(pa.float32())),
    "miles as text": changed([MILES], lambda c: c.cast(pa.large_string())),
    "other names and order": lambda table: turned(table),
}


def turned(table: pa.Table) -> pa.Table:
    """Rename and reorder the columns."""
    return table.rename_columns([f" {name.upper()}" for name in table.column_names]).select(
        [4, 2, 0, 3, 1]
    )


@pytest.fixture
def wanted(tmp_path: Path) -> pa.Table:
    (tmp_path / "plain").mkdir()
    pq.write_table(make_month(), tmp_path / "plain" / f"{NAME}.parquet")
    trips = trips_of(tmp_path / "plain")
    assert len(trips) == 40
    return trips


@pytest.mark.parametrize("way", PARQUET)
def test_parquet_of_any_types_that_say_the_same_gives_the_same_trips(
    way: str, tmp_path: Path, wanted: pa.Table
) -> None:
    pq.write_table(PARQUET[way](make_month()), tmp_path / f"{NAME}.parquet")
    assert trips_of(tmp_path).equals(wanted)


def test_times_of_96_bits_give_the_same_trips(tmp_path: Path, wanted: pa.Table) -> None:
    path = tmp_path / f"{NAME}.parquet"
    pq.write_table(make_month(), path, use_deprecated_int96_timestamps=True)
    assert trips_of(tmp_path).equals(wanted)


# --- csv


def to_csv(table: pa.Table | None = None, **options: object) -> str:
    """Write a month as pandas does."""
    return (make_month() if table is None else table).to_pandas().to_csv(**options)


def times_as(text: Callable[[pd.Series], pd.Series]) -> str:
    """Write a month as csv, with its times formatted by `text`."""
    frame = make_month().to_pandas()
    for name in TIMES:
        frame[name] = text(frame[name])
    return frame.to_csv(index=False)


def in_new_york(times: pd.Series) -> pd.Series:
    return times.dt.tz_localize("America/New_York")


def in_utc(times: pd.Series) -> pd.Series:
    return in_new_york(times).dt.tz_convert("UTC")


def rows_of(separator: str = ",") -> list[str]:
    return to_csv(index=False, sep=separator).splitlines()


def longer_rows() -> list[str]:
    """Write rows that have two more, empty, fields than the header."""
    return [*rows_of()[:1], *[row + ",," for row in rows_of()[1:]]]


CSV: dict[str, Callable[[], str | bytes]] = {
    "plain": lambda: to_csv(index=False),
    "an index without a name": to_csv,
    "ids as 121.0": lambda: to_csv(
        changed(ZONES, lambda c: c.cast(pa.float64()))(make_month()), index=False
    ),
    "everything quoted": lambda: to_csv(index=False, quoting=1),
    "spaces after commas": lambda: "\n".join(row.replace(",", ", ") for row in rows_of()),
    "semicolons": lambda: to_csv(index=False, sep=";"),
    "tabs": lambda: to_csv(index=False, sep="\t"),
    "UTF-16 as of Excel": lambda: to_csv(index=False, sep="\t").encode("utf-16"),
    "UTF-16 of the other order": lambda: b"\xfe\xff" + to_csv(index=False).encode("utf-16-be"),
    "byte order mark": lambda: to_csv(index=False).encode("utf-8-sig"),
    "a gzip that does not say so": lambda: gzip.compress(to_csv(index=False).encode()),
    "empty fields beyond the header": lambda: "\r\n".join(
        [*longer_rows()[:1], "", *longer_rows()[1:], ""]
    ),
    "empty columns at the end": lambda: "\n".join(row + ",," for row in rows_of()),
    "the header again": lambda: "\n".join([*rows_of()[:9], rows_of()[0], *rows_of()[9:]]),
    "the header in the second line": lambda: "\n".join([rows_of()[0], *rows_of()]),
    "the header again above longer rows": lambda: "\r\n".join(
        [*longer_rows()[:1] * 2, *longer_rows()[1:9], rows_of()[0], *longer_rows()[9:]]
    ),
    "the header again, quoted behind blanks": lambda: "\n".join(
        row.replace(",", '", "').join('""') for row in [*rows_of()[:1], *rows_of()]
    ),
    "blanks in empty fields beyond the header": lambda: "\n".join(
        row.replace(",", ", ") for row in longer_rows()
    ),
    "a letter that is no UTF-8": lambda: "\n".join(
        ["who," + rows_of()[0], *["Zo\u00eb," + row for row in rows_of()[1:]]]
    ).encode("latin-1"),
    "BigQuery": lambda: times_as(lambda s: in_utc(s).dt.strftime("%Y-%m-%d %H:%M:%S UTC")),
    "Z": lambda: times_as(lambda s: in_utc(s).dt.strftime("%Y-%m-%dT%H:%M:%SZ")),
    "offsets": lambda: times_as(lambda s: in_new_york(s).astype(str)),
    "offsets of hours": lambda: times_as(
        lambda s: in_new_york(s).dt.strftime("%Y-%m-%d %H:%M:%S-05")
    ),
    "nine decimals": lambda: times_as(lambda s: s.dt.strftime("%Y-%m-%d %H:%M:%S.000000000")),
    "the city's portal": lambda: times_as(lambda s: s.dt.strftime("%m/%d/%Y %I:%M:%S %p")),
    "slashes, year first": lambda: times_as(lambda s: s.dt.strftime("%Y/%m/%d %H:%M:%S")),
}


@pytest.mark.parametrize("way", CSV)
def test_csv_that_says_the_same_gives_the_same_trips(
    way: str, tmp_path: Path, wanted: pa.Table
) -> None:
    content = CSV[way]()
    body = content.encode() if isinstance(content, str) else content
    path = tmp_path / f"{NAME}.csv"
    path.write_bytes(body)
    assert trips_of(tmp_path).equals(wanted)
    read = read_month(path, "green", partial(clean, taxi="green", month=MONTH))
    assert not any(sum(part.dropped.values()) for part in read)


@pytest.mark.parametrize("nothing", ["", "\\N", "NULL", "nan", "NaT", "<NA>", '""', "None"])
def test_words_for_nothing_are_nothing(nothing: str, tmp_path: Path) -> None:
    header, first, *rows = rows_of()
    cut = first.split(",")
    other = rows[0].split(",")
    lines = [header, ",".join([*cut[:2], nothing, *cut[3:]]), ",".join([*other[:4], nothing])]
    (tmp_path / f"{NAME}.csv").write_text("\n".join([*lines, *rows[1:]]))
    (cleaned,) = read_month(
        tmp_path / f"{NAME}.csv", "green", partial(clean, taxi="green", month=MONTH)
    )
    assert {why: n for why, n in cleaned.dropped.items() if n} == {"zone missing": 1}
    assert cleaned.trips["distance_miles"][0].as_py() is None


@pytest.mark.parametrize("blank", ["", "\n"])
def test_a_value_of_two_readings_is_refused_by_its_line(blank: str, tmp_path: Path) -> None:
    lines = times_as(lambda s: s.dt.strftime("%m/%d/%Y %H:%M:%S")).splitlines()
    clear = [line for line in lines[1:] if int(line[3:5]) > 12]
    unclear = lines[1].replace(lines[1][:5], "01/02")
    (tmp_path / f"{NAME}.csv").write_text(f"{lines[0]}\n{blank}{unclear}\n{clear[0]}\n")
    with pytest.raises(TripError, match=r"^line (2|3): .*2021-01-02 \(month first\) or 2021-02-01"):
        trips_of(tmp_path)


def test_a_value_of_two_readings_in_parquet_is_refused_by_its_row(tmp_path: Path) -> None:
    texts = [str(n) for n in range(39)] + ["1,5"]
    table = changed([MILES], lambda _: pa.array(texts))(make_month())
    pq.write_table(table, tmp_path / f"{NAME}.parquet")
    with pytest.raises(TripError, match=r"^row 40: column 'trip_distance' has '1,5', which may"):
        trips_of(tmp_path)


# --- folders


def write_parts(folder: Path, names: list[str]) -> None:
    """Write a month in parts of equal size under these names, in order."""
    folder.mkdir(parents=True)
    table, n = make_month(), 40 // len(names)
    for place, name in enumerate(names):
        part = table.slice(place * n, n)
        (folder / name).parent.mkdir(exist_ok=True)
        if name.endswith(".csv"):
            pa_csv.write_csv(part, folder / name)
        else:
            pq.write_table(part, folder / name)
    for mark in ("_SUCCESS", ".part-0.parquet.crc", "_metadata", "README.md"):
        (folder / mark).write_text("no part")


FOLDERS = {
    "Spark": (f"{NAME}.parquet", ["part-00000-a.snappy.parquet", "part-00001-a.snappy.parquet"]),
    "Spark, csv": (f"{NAME}.csv", ["part-00000.csv", "part-00001.csv"]),
    "Dask": (f"{NAME}.parquet", [f"part.{n}.parquet" for n in range(20)]),
    "DuckDB": (NAME, ["data_0.parquet", "data_1.parquet"]),
    "hive": ("year=2021/month=01", ["a.parquet", "b.parquet"]),
    "hive without a zero": ("year=2021/month=1", ["part-0.parquet"]),
    "hive by day": (
        "year=2021/month=1",
        ["day=1/x.parquet", "day=2/x.parquet", "day=10/x.parquet", "day=20/x.parquet"],
    ),
}


@pytest.mark.parametrize("writer", FOLDERS)
def test_a_folder_of_parts_is_read_as_one_month(
    writer: str, tmp_path: Path, wanted: pa.Table
) -> None:
    name, parts = FOLDERS[writer]
    write_parts(tmp_path / "data" / name, parts)
    assert trips_of(tmp_path / "data").equals(wanted)
    found = find_month(str(tmp_path / "data"), "green", MONTH, tmp_path)
    assert found.path == tmp_path / "data" / name
    assert found.n_bytes == sum((found.path / part).stat().st_size for part in parts)
    (found.path / parts[-1]).write_bytes((found.path / parts[0]).read_bytes())
    again = find_month(str(tmp_path / "data"), "green", MONTH, tmp_path)
    assert (again.sha256 == found.sha256) == (len(parts) == 1)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_part_without_rows_adds_none(version: str, tmp_path: Path, wanted: pa.Table) -> None:
    write_parts(tmp_path / NAME, ["a.parquet", "c.parquet"])
    none = make_month().slice(0, 0)
    way = {"use_dictionary": False, "data_page_version": version}  # so there is no dictionary page
    pq.write_table(none, tmp_path / NAME / "b.parquet", **way)
    assert trips_of(tmp_path).equals(wanted)


@pytest.mark.parametrize(
    ("link", "target", "said"),
    [
        ("b.parquet", "nowhere", "is no file and no folder"),
        ("day=2", "..", "is a link to a folder"),
    ],
)
def test_no_part_is_passed_by_because_it_is_a_link(
    link: str, target: str, said: str, tmp_path: Path
) -> None:
    write_parts(tmp_path / NAME, ["a.parquet"])
    (tmp_path / NAME / link).symlink_to(target)
    with pytest.raises(StorageError, match=f"{NAME}/{re.escape(link)} {said}"):
        trips_of(tmp_path)


def test_a_link_to_a_part_and_one_to_the_whole_folder_are_followed(
    tmp_path: Path, wanted: pa.Table
) -> None:
    write_parts(tmp_path / "elsewhere", ["a.parquet", "b.parquet"])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / NAME).symlink_to(tmp_path / "elsewhere")
    assert trips_of(tmp_path / "folder").equals(wanted)
    (tmp_path / "parts" / NAME).mkdir(parents=True)
    for part in ("a.parquet", "b.parquet"):
        (tmp_path / "parts" / NAME / part).symlink_to(tmp_path / "elsewhere" / part)
    assert trips_of(tmp_path / "parts").equals(wanted)


def test_a_month_in_two_folders_is_refused_with_both(tmp_path: Path) -> None:
    for number in ("01", "1"):
        write_parts(tmp_path / "year=2021" / f"month={number}", ["a.parquet"])
    both = f"{tmp_path}/year=2021/month=01 and {tmp_path}/year=2021/month=1"
    with pytest.raises(StorageError, match=f"^2021-01 is there twice: {re.escape(both)}. Put"):
        find_month(str(tmp_path), "green", MONTH, tmp_path)


def test_an_error_in_a_part_names_it(tmp_path: Path) -> None:
    write_parts(tmp_path / NAME, ["a.csv", "b.csv"])
    (tmp_path / NAME / "b.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TripError, match=r"^b\.csv: Column 'lpep_pickup_datetime' is missing"):
        trips_of(tmp_path)


@pytest.mark.parametrize("name", [f"{NAME.upper()}.PARQUET", f"{NAME}.Parquet"])
def test_the_case_of_a_name_does_not_matter(name: str, tmp_path: Path, wanted: pa.Table) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(make_month(), tmp_path / "data" / name)
    assert trips_of(tmp_path / "data").equals(wanted)


# --- app rides and car services, in the formats of several years

BEGAN, ENDED = ["2021-01-15 17:45:00"] * 3, ["2021-01-15 17:57:00"] * 3
APPS_OF_2024 = {
    "hvfhs_license_num": pa.array(["HV0003", "HV0005", "HV0003"], pa.large_string()),
    "request_datetime": pa.array(BEGAN).cast(pa.timestamp("us")),
    "pickup_datetime": pa.array(BEGAN).cast(pa.timestamp("us")),
    "dropoff_datetime": pa.array(ENDED).cast(pa.timestamp("us")),
    "PULocationID": pa.array([74, 75, 76], pa.int32()),
    "DOLocationID": pa.array([75, 76, 265], pa.int32()),
    "trip_miles": pa.array([2.5, 0.0, 3.5]),
    "trip_time": pa.array([725, 720, 720], pa.int64()),
    "shared_request_flag": pa.array(["N", "Y", "Y"], pa.large_string()),
    "shared_match_flag": pa.array(["N", "N", "Y"], pa.large_string()),
    "wav_match_flag": pa.array(["Y", "N", "N"], pa.large_string()),
}
APPS_OF_2019 = {  # a csv, in which every value is text
    "hvfhs_license_num": ["HV0003"] * 3,
    "dispatching_base_num": ["B02764"] * 3,
    "pickup_datetime": BEGAN,
    "dropoff_datetime": ENDED,
    "PULocationID": ["74", "75", "76"],
    "DOLocationID": ["75", "76", "265"],
    "SR_Flag": ["", "", "1"],
}
SERVICES_OF_2021 = {
    "dispatching_base_num": ["B00009"] * 3,
    "pickup_datetime": pa.array(BEGAN).cast(pa.timestamp("us")),
    "dropOff_datetime": pa.array(ENDED).cast(pa.timestamp("us")),
    "PUlocationID": pa.array([None, 75.0, 76.0]),
    "DOlocationID": pa.array([75.0, None, 265.0]),
    "SR_Flag": pa.nulls(3),
    "Affiliated_base_number": ["B00009"] * 3,
}
SERVICES_OF_2018 = {
    "Pickup_DateTime": BEGAN,
    "DropOff_datetime": ENDED,
    "PUlocationID": ["", "75", "76"],
    "DOlocationID": ["75", "", "265"],
    "SR_Flag": ["", "1", ""],
    "Dispatching_base_number": ["B00009"] * 3,
}


@pytest.mark.parametrize(
    ("taxi", "columns", "suffix", "wanted"),
    [
        ("fhvhv", APPS_OF_2024, ".parquet", [(74, 75, 2.5, 725 / 60), (75, 76, 0.0, 12.0)]),
        ("fhvhv", APPS_OF_2019, ".csv", [(74, 75, None, 12.0), (75, 76, None, 12.0)]),
        (
            *("fhv", SERVICES_OF_2021, ".parquet"),
            [(0, 75, None, 12.0), (75, 0, None, 12.0), (76, 265, None, 12.0)],
        ),
        ("fhv", SERVICES_OF_2018, ".csv", [(0, 75, None, 12.0), (76, 265, None, 12.0)]),
    ],
)
def test_app_rides_and_car_services_are_read_as_their_years_wrote_them(
    tmp_path: Path, taxi: str, columns: dict[str, object], suffix: str, wanted: list[object]
) -> None:
    path, table = tmp_path / f"{taxi}_tripdata_{MONTH}{suffix}", pa.table(columns)
    write = pq.write_table if suffix == ".parquet" else pa_csv.write_csv
    write(table, path)
    trips = trips_of(tmp_path, taxi=taxi).drop_columns(["pickup_at"])
    assert list(zip(*trips.to_pydict().values(), strict=True)) == wanted


def test_of_a_month_of_app_rides_only_what_is_needed_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table(APPS_OF_2024), tmp_path / f"fhvhv_tripdata_{MONTH}.parquet")
    seen: list[list[str]] = []
    path = find_month(str(tmp_path), "fhvhv", MONTH, Path("nowhere")).path
    list(read_month(path, "fhvhv", lambda batch: seen.append(batch.schema.names)))
    unread = {"hvfhs_license_num", "request_datetime", "shared_request_flag", "wav_match_flag"}
    assert seen == [[name for name in APPS_OF_2024 if name not in unread]]
