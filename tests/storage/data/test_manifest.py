"""Months beside a file SHA256SUMS, as written by sha256sum."""

import hashlib
from pathlib import Path

import pytest

from storage import StorageError
from storage.data import months
from storage.data.manifest import SHA256SUMS, read_manifest
from tests.storage.samples import NAME, make_parquet
from tests.storage.sources import find, find_error

GOOD = make_parquet()
HASH = hashlib.sha256(GOOD).hexdigest()
PART = f"{NAME}/part-0.parquet"


@pytest.mark.parametrize(
    "lines",
    [
        f"{HASH}  {NAME}\n",
        f"{HASH} *./{NAME}\r\n\r\n",
        f"\ufeffSHA256 ({NAME}) = {HASH.upper()}",
        f"{'0' * 64}  another.parquet\n",
        "",
    ],
)
def test_a_file_that_a_manifest_lists_or_does_not_is_taken(lines: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(GOOD)
    (tmp_path / SHA256SUMS).write_text(lines, encoding="utf-8")
    assert find(tmp_path).sha256 == HASH


@pytest.mark.parametrize("name", [NAME, PART])
def test_another_file_is_refused_with_both_hashes_wherever_it_is_asked_for(
    name: str, tmp_path: Path
) -> None:
    cut = GOOD[:-7]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(cut)
    (tmp_path / SHA256SUMS).write_text(f"{HASH}  {name}\n")
    line = find_error(tmp_path)
    assert line.startswith(f"{tmp_path / name} is not the file that SHA256SUMS beside it lists: ")
    assert hashlib.sha256(cut).hexdigest() in line
    assert HASH in line
    for ask in (months.locate, months.identify):
        with pytest.raises(StorageError, match="is not the file that SHA256SUMS"):
            ask(str(tmp_path), taxi="green", month="2021-01")


def test_a_file_beside_the_months_is_held_against_it_too(tmp_path: Path) -> None:
    (tmp_path / "zones.csv").write_text("1")
    (tmp_path / SHA256SUMS).write_text(f"{HASH}  zones.csv\n")
    with pytest.raises(StorageError, match=r"zones\.csv is not the file that SHA256SUMS"):
        months.find_side_files(str(tmp_path), ["zones.csv"])


def test_a_manifest_that_is_none_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / SHA256SUMS
    path.write_text(f"{HASH}  a\n{HASH[:-1]}  b\n")
    with pytest.raises(StorageError, match="line 2 is not as sha256sum writes it"):
        read_manifest(path)


def test_a_manifest_in_utf_16_is_refused_by_its_line(tmp_path: Path) -> None:
    """As a shell of Windows writes what is sent into a file."""
    path = tmp_path / SHA256SUMS
    path.write_bytes(f"{HASH}  a\r\n".encode("utf-16"))
    with pytest.raises(StorageError, match="line 1 is not as sha256sum writes it"):
        read_manifest(path)
