"""Months as text, in folders and simulated."""

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import StorageError, UserError
from storage.checkout import ROOT
from storage.data import downloads, files, months
from storage.data.cache import cache_dir
from storage.data.splits import split_months
from tests.storage.samples import NAME, make_parquet, one_line, read
from tests.storage.sources import (
    find,
    find_error,
    make_folder,
    simulate_two_batches,
)

DATA = Path(os.environ.get("TAXI_DATA") or ROOT.parent / "shared" / "data")


# --- months as text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-01", ["2021-01"]),
        ("2021-03,2021-01", ["2021-03", "2021-01"]),
        ("2020-11..2021-02", ["2020-11", "2020-12", "2021-01", "2021-02"]),
        ("2021-05..2021-05", ["2021-05"]),
        ("2021-06, 2021-01 .. 2021-02 ,2020-12", ["2021-06", "2021-01", "2021-02", "2020-12"]),
        ("", []),
        ("  ", []),
    ],
)
def test_months_are_read_in_the_order_given(text: str, expected: list[str]) -> None:
    assert months.parse_months(text) == expected


@pytest.mark.parametrize(
    ("valid", "test", "expected"),
    [
        ("2021-02", "next", ["2021-03"]),
        ("2021-03,2021-02", "next", ["2021-04"]),
        ("2020-12", "next", ["2021-01"]),
        ("2021-02", "2021-05..2021-06", ["2021-05", "2021-06"]),
        ("2021-02", " ", None),
    ],
)
def test_the_next_month_is_that_after_the_latest_valid_one(
    valid: str, test: str, expected: list[str] | None
) -> None:
    assert split_months("2020-11", valid, test).get("test") == expected


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("2021-13", "'2021-13'"),
        ("2021-00", "'2021-00'"),
        ("2021-1", "'2021-1'"),
        ("january", "'january'"),
        ("2021-01,", "''"),
        ("2021-01..", "''"),
        ("2021-01..2021-02..2021-03", "'2021-02..2021-03'"),
        ("2021-01-01", "'2021-01-01'"),
        ("٢٠٢١-٠١", "'٢٠٢١-٠١'"),  # noqa: RUF001
    ],
)
def test_text_that_is_no_month_is_refused_by_name(text: str, seen: str) -> None:
    with pytest.raises(UserError) as caught:
        months.parse_months(text)
    assert one_line(caught).startswith(f"{seen} in {text!r} is not a month. Type YYYY-MM")


@pytest.mark.parametrize("text", ["0000-01", "9999-12", "2021-01..9999-12", "1899-12"])
def test_months_of_no_taxi_are_refused_at_once(text: str) -> None:
    with pytest.raises(UserError, match=r"is no month of taxi trips\. Type one from 1900-01 to"):
        months.parse_months(text)


@pytest.mark.parametrize(
    "source",
    ["~nosuchuser", "~nosuchuser/x", "a\0b", "x" * 5_000, "http://[::1", "http://h:port/x", "s3://",
     "file://", "file://%00", "http://\nx", "http://127.0.0.1:99999", "://", "simulated:1:"],
)  # fmt: skip
def test_a_malformed_source_is_one_short_line(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "RETRIES", 0)
    message = find_error(source)
    assert message.isprintable()
    assert len(message) < 600


def test_a_cache_of_a_user_nobody_knows_is_a_folder_of_that_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAXI_CACHE", "~nosuchuser/c")
    assert cache_dir() == Path("~nosuchuser/c")


def test_a_backwards_range_is_refused_with_the_range_to_type() -> None:
    with pytest.raises(UserError, match=r"'2021-06\.\.2021-01' runs backwards.*2021-01\.\.2021"):
        months.parse_months("2021-06..2021-01")


@pytest.mark.parametrize("text", ["2021-02,2021-02", "2021-01..2021-03,2021-02"])
def test_overlapping_months_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="2021-02 is given twice"):
        months.parse_months(text)


@pytest.mark.parametrize(("month", "after"), [("2021-01", "2021-02"), ("2020-12", "2021-01")])
def test_next_month_crosses_the_year(month: str, after: str) -> None:
    assert months.next_month(month) == after


# --- folders


def test_a_month_in_a_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    body = make_parquet()
    folder = make_folder(tmp_path / "data", **{NAME: body})
    found = find(folder)
    assert found == months.MonthFile(
        "2021-01",
        (folder / NAME).as_uri(),
        folder / NAME,
        hashlib.sha256(body).hexdigest(),
        len(body),
    )


def test_parquet_wins_over_csv_and_the_taxi_tells_files_apart(tmp_path: Path) -> None:
    names = ["green_tripdata_2021-01.csv.gz", "green_tripdata_2021-01.csv", NAME]
    folder = tmp_path / "data"
    make_folder(folder, **{"yellow_tripdata_2021-01.parquet": b"another"})
    for name in names:  # from the least to the most preferred
        make_folder(folder, **{name: b"x"})
        assert find(folder).path.name == name
    assert find(folder, taxi="yellow").path.name == "yellow_tripdata_2021-01.parquet"


def test_a_file_uri_names_a_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "my data", **{NAME: make_parquet()})
    assert "%20" in folder.as_uri()
    assert find(folder.as_uri()) == find(folder)


def test_home_and_relative_folders_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "data", **{NAME: make_parquet()})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert find("~/data") == find("data") == find("./data") == find(folder)


def test_a_pipe_in_a_month_s_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "green_tripdata_2021-01.parquet")
    with pytest.raises(StorageError, match=r"parquet is no file and no folder\. Put"):
        months.locate(str(tmp_path), taxi="green", month="2021-01")


@pytest.mark.parametrize(
    ("address", "lack"),
    [
        ("http://[::1", "Invalid IPv6 URL"),
        ("https://", "it names no host"),
        ("http:///green", "it names no host"),
        ("http://host:99999/green", "Port out of range 0-65535"),
        ("http://ada:hush@host:port/green", "Port could not be cast to integer value as 'port'"),
        ("s3://", "it names no host"),
    ],
)
def test_an_address_without_a_host_is_refused_before_anybody_is_asked(
    address: str, lack: str
) -> None:
    for look in (months.locate, months.identify):
        with pytest.raises(StorageError, match=f"can come from: {lack}. Pass another") as refused:
            look(address, taxi="green", month="2021-01")
        assert "hush" not in str(refused.value)


def test_a_missing_month_names_the_folder_the_files_tried_and_those_there(tmp_path: Path) -> None:
    there = {f"green_tripdata_2023-{month:02d}.parquet": b"" for month in range(1, 8)}
    message = find_error(make_folder(tmp_path / "data", **there))
    for seen in (str(tmp_path / "data"), "2021-01", NAME, "green_tripdata_2021-01.csv.gz"):
        assert seen in message
    assert "Months there: 2023-07, 2023-06, 2023-05, 2023-04, 2023-03 and 2 more. " in message


def test_a_month_that_is_there_in_a_way_nobody_reads_is_named(tmp_path: Path) -> None:
    packed = "green_tripdata_2021-01.csv.zip"
    message = find_error(make_folder(tmp_path / "zip", **{packed: b"PK"}))
    assert f"{packed} is there: unpack it" in message
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / NAME).symlink_to("nowhere")  # like a file that git-annex has not fetched
    message = find_error(tmp_path / "link")
    assert f"{NAME} is there: unpack it, or put what it links to in its place." in message


def test_a_missing_relative_folder_hints_at_absolute_paths() -> None:
    message = find_error("no/such/folder")
    assert "'no/such/folder'" in message
    assert "pass an absolute path when running from a git URL" in message


@pytest.mark.parametrize("source", ["ftp://me:secret@host/trips", "tcl", "tlc:2021", "", " "])
def test_an_unknown_source_is_answered_with_the_known_ones(source: str) -> None:
    message = find_error(source)
    assert "no known source (tlc, simulated, " in message
    assert "https://" in message
    assert "secret" not in message


# --- simulated months


def test_a_simulated_month_is_the_same_file_every_time(tmp_path: Path) -> None:
    options = {"simulate": simulate_two_batches}
    first = find("simulated:3:5", work_dir=tmp_path / "a", **options)
    again = find("simulated:3:5", work_dir=tmp_path / "b", **options)
    other = find("simulated:3:6", work_dir=tmp_path / "c", **options)
    assert first.path == tmp_path / "a" / NAME
    assert first.uri == "simulated:3:5"
    assert first.sha256 == again.sha256 != other.sha256
    assert read(first.path, "zone") == {"zone": [6, 6, 6, 7, 7, 7]}


@pytest.mark.parametrize(
    ("source", "expected"), [("simulated", (30_000, 42)), ("simulated:7", (7, 42))]
)
def test_a_simulation_says_the_size_and_seed_it_used(
    source: str, expected: tuple[int, int], tmp_path: Path
) -> None:
    asked = []

    def simulate(month: str, n_trips: int, seed: int) -> Iterator[pa.RecordBatch]:
        asked.append((month, n_trips, seed))
        return simulate_two_batches(month, 1, seed)

    found = find(source, work_dir=tmp_path, simulate=simulate)
    assert asked == [("2021-01", *expected)]
    assert found.uri == "simulated:{}:{}".format(*expected)


def test_a_disk_that_cannot_hold_a_simulated_month_is_named_and_keeps_no_half(
    tmp_path: Path,
) -> None:
    def simulate(month: str, n_trips: int, seed: int) -> Iterator[pa.RecordBatch]:
        yield from simulate_two_batches(month, n_trips, seed)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError) as refused:
        find("simulated:3", work_dir=tmp_path, simulate=simulate)
    assert one_line(refused).startswith(f"Cannot write {tmp_path / NAME}: [Errno 28] No space")
    assert not list(tmp_path.glob("*tripdata*"))


@pytest.mark.parametrize("tail", ["0", "-5", "many", "1e3", "", "5:x", "5:1:2"])
def test_a_simulation_of_no_size_is_refused(tail: str) -> None:
    assert "above 0" in find_error(f"simulated:{tail}")


# --- finding and reading together


@pytest.mark.parametrize(
    ("month", "zone_type"), [("2021-01", pa.string()), ("2023-01", pa.int64())]
)
def test_real_months_are_found_and_read(month: str, zone_type: pa.DataType) -> None:
    if not (DATA / f"green_tripdata_{month}.parquet").exists():
        pytest.skip(f"no {month} in {DATA}: set TAXI_DATA to a folder of TLC files")
    path = find(DATA, month).path
    assert files.read_schema(path).field("PULocationID").type == zone_type
    columns = ["PULocationID", "lpep_pickup_datetime"]
    lengths = [len(batch) for batch in files.read_batches(path, columns, batch_rows=10_000)]
    assert sum(lengths) == pq.ParquetFile(path).metadata.num_rows
    assert max(lengths) <= 10_000


def test_reading_a_month_does_not_import_pandas_or_mlflow(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(make_parquet())
    code = (
        "import sys; from pathlib import Path; from storage.data import files, months\n"
        f"found = months.find({str(tmp_path)!r}, taxi='green', month='2021-01',"
        " work_dir=Path(), simulate=None)\n"
        "assert list(files.read_batches(found.path, ['zone']))\n"
        "print({'pandas', 'mlflow', 'pooch', 'fsspec'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
