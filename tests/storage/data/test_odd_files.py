"""Files that are not what their names say, and limits on those that are."""

import bz2
import codecs
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from storage import StorageError
from storage.data import csv_files, files, streams
from tests.storage.samples import CSV, NAME, make_parquet, one_line, read

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1254291\n"


def refusal(path: Path, content: bytes) -> str:
    """Write a file that must be refused; return the error."""
    path.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        files.read_schema(path)
    return one_line(caught)


def tar(content: bytes) -> bytes:
    """Put a file into a tar."""
    about, sink = tarfile.TarInfo("trips.csv"), io.BytesIO()
    about.size = len(content)
    with tarfile.open(fileobj=sink, mode="w") as archive:
        archive.addfile(about, io.BytesIO(content))
    return sink.getvalue()


@pytest.mark.parametrize("name", [NAME, "trips.csv"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER, "it is a Git LFS pointer, for which `git lfs pull` fetches the file"),
        (b"\n<!DOCTYPE html><html><body>Sign in", "it is an HTML page"),
        (b"\xef\xbb\xbf<html>", "it is an HTML page"),
        (b'<?xml version="1.0"?><Error>', "it is an XML page"),
        (b"PK\x03\x04rest", "it is a zip: unpack it"),
        (bz2.compress(CSV), "it is packed by bzip2: unpack it"),
        (lzma.compress(CSV), "it is packed by xz: unpack it"),
        (pa.compress(CSV, "zstd", asbytes=True), "it is packed by zstd: unpack it"),
        (tar(CSV), "it is a tar: unpack it"),
    ],
)
def test_what_a_file_is_instead_is_said(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    assert said in refusal(tmp_path / name, content)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (NAME, gzip.compress(make_parquet()), "it is packed by gzip: unpack it"),
        ("trips.csv", make_parquet(), "it is parquet: name it .parquet"),
        ("trips.csv", b"a" * 300_000, "its first line is longer than 262,144 bytes"),
        ("trips.csv", ",".join(f"n{n}" for n in range(3000)).encode(), "it has 3,000 columns"),
        ("trips.csv", b"a,b\n1,2,3\n", "line 2 has 3 fields, and its header 2"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_what_it_is(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    line = refusal(tmp_path / name, content)
    assert said in line
    assert len(line) < 600


def test_a_value_beyond_the_header_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv"
    path.write_text("a,b\n1,2,\n3,4,5\n")
    with pytest.raises(StorageError, match="a value beyond the columns that its header names"):
        read(path, "b")


def test_a_line_too_long_to_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CSV_BLOCK_BYTES", 1000)
    (tmp_path / "trips.csv").write_bytes(CSV + b"2021-01-01,7," + b"9" * 5000 + b"\n" + CSV)
    with pytest.raises(StorageError, match=r"a line is longer than 1,000 bytes"):
        read(tmp_path / "trips.csv", "zone")


@pytest.mark.parametrize("block_bytes", [1000, files.CSV_BLOCK_BYTES])
@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b'9,9,"9\n', r"line 102: a quote is opened that its line does not close\."),
        (b'9,"9,9\n', r"line 102: Expected 3 columns, got 2: 9,\"9,9( 1,2,3)*\."),
    ],
)
def test_a_quote_that_nothing_closes_swallows_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, row: bytes, said: str
) -> None:
    monkeypatch.setattr(files, "CSV_BLOCK_BYTES", block_bytes)
    path = tmp_path / "trips.csv"
    path.write_bytes(b"a,b,c\n" + b"1,2,3\n" * 100 + row + b"1,2,3\n" * 400)
    with pytest.raises(StorageError, match=said):
        read(path, "a")


@pytest.mark.parametrize("name", ["trips.csv", "trips.csv.gz"])
def test_a_gzip_that_grows_without_end_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_UNPACKED", 10_000)
    path = tmp_path / name
    path.write_bytes(gzip.compress(CSV + b"2021-01-01 00:00:00,7,1.5\n" * 50_000))
    said = r"it unpacks to more than [0-9,]+ bytes"
    with pytest.raises(StorageError, match=said):
        read(path, "zone")
    with pytest.raises(StorageError, match=said):
        files.check_complete(path, name)


def test_a_gigabyte_of_zeros_is_refused_by_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)) * 1024)
    with pytest.raises(StorageError, match="its first line is longer than"):
        files.read_schema(path)


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_a_line_is_found_again_among_blank_ones_and_headers(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "trips.csv"
    lines = b"\na,b\r\n\r\n1,2\r\na,b\r\n3,4\r\n\r\n5,6".splitlines()
    path.write_bytes(codecs.BOM_UTF8 + end.join(lines))
    assert [csv_files.line_of(path, row) for row in range(3)] == [4, 6, 8]
    assert read(path, "b") == {"b": ["2", "4", "6"]}


def test_a_row_of_nothing_but_tabs_counts_as_a_line(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv"
    path.write_bytes(b"a\tb\tc\n1\t2\t3\n\t\t\n4\t5\t6\n7\t8\n")
    assert csv_files.line_of(path, 2) == 4
    with pytest.raises(StorageError, match="line 5: Expected 3 columns, got 2"):
        read(path, "b")
