"""Parquet whose few bytes claim a great many: refused in a line before they are unpacked."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet.encryption import (
    CryptoFactory,
    EncryptionConfiguration,
    KmsClient,
    KmsConnectionConfig,
)

from storage import StorageError
from storage.data import files, parquet_files, streams
from tests.storage.samples import NAME, make_parquet, one_line, read

LONG = pa.array([b"7" * 20_000])
LONG_TEXT = LONG.cast(pa.string())


def repeated(values: pa.Array, n_rows: int) -> pa.DictionaryArray:
    """Say the first value n_rows times, in a few bytes."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * n_rows, pa.int32()), values)


def written(path: Path, values: pa.Array, **way: Any) -> Path:
    """Write a column, unknown to the file that it was a dictionary."""
    pq.write_table(pa.table({"zone": values}), path, store_schema=False, **way)
    return path


BOMBS: dict[str, tuple[Callable[[], pa.Array], dict[str, Any], str]] = {
    "rows": (
        lambda: repeated(pa.array([7]), 600_000),
        {},
        "column 'zone' unpacks to .* beyond all months",
    ),
    "zeros": (
        lambda: pa.array([bytes(2_000_000)]),
        {"use_dictionary": False, "compression": "zstd", "write_statistics": False},
        r"column 'zone' unpacks to 2,000,0\d\d bytes",
    ),
    "a long text in many rows": (
        lambda: repeated(LONG, 20_000),
        {},
        r"20,000 rows of zone have 400,\d{3},\d{3} bytes",
    ),
    "the same as text": (
        lambda: repeated(LONG_TEXT, 20_000),
        {},
        r"20,000 rows of zone have 400,\d{3},\d{3} bytes",
    ),
    "the same by what is new in each": (
        lambda: repeated(LONG, 2_000).dictionary_decode(),
        {"use_dictionary": False, "column_encoding": {"zone": "DELTA_BYTE_ARRAY"}},
        "rows of zone have .* bytes",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_unpacks_without_bound_is_refused(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, way, said = BOMBS[bomb]
    monkeypatch.setattr(streams, "MAX_UNPACKED", 1_000_000)
    monkeypatch.setattr(parquet_files, "MAX_PAGE", 1_000_000)
    monkeypatch.setattr(parquet_files, "MAX_TEXT", 1_000_000)
    path = written(tmp_path / NAME, make(), **way)
    assert path.stat().st_size < 30_000
    with pytest.raises(StorageError, match=said) as caught:
        read(path, "zone")
    assert f"Cannot read {path}: " in one_line(caught)


def test_long_values_are_read_as_many_at_a_time_as_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "MAX_TEXT", 100_000)
    values = pa.array([b"7" * 1_000] * 1_000, pa.binary(1_000))
    path = written(tmp_path / NAME, values, use_dictionary=False)
    batches = list(files.read_batches(path, ["zone"]))
    assert [len(batch) for batch in batches] == [100] * 10
    assert batches[0].column("zone").equals(values[:100])


@pytest.mark.parametrize("way", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", None])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_texts_keep_their_type_however_they_are_written(
    way: str | None, version: str, tmp_path: Path
) -> None:
    texts = pa.array([str(n % 300) for n in range(5_000)] + [None], pa.large_string())
    encoding = {"use_dictionary": False, "column_encoding": {"zone": way}} if way else {}
    options = {"data_page_version": version, "data_page_size": 500, "row_group_size": 2_000}
    pq.write_table(pa.table({"zone": texts}), tmp_path / NAME, **options, **encoding)
    batches = list(files.read_batches(tmp_path / NAME, ["zone"]))
    assert pa.chunked_array([batch.column("zone") for batch in batches]).equals(
        pa.chunked_array([texts])
    )


def test_a_file_with_other_rows_than_its_footer_says_is_refused(tmp_path: Path) -> None:
    rows_2, rows_3 = (b"\x16%c\x19\x1c" % (2 * n) for n in (2, 3))  # and row groups follow
    content = make_parquet()
    assert content.count(rows_2) == 1
    (tmp_path / NAME).write_bytes(content.replace(rows_2, rows_3))
    with pytest.raises(StorageError, match="its footer says 3 rows, and it has 2"):
        read(tmp_path / NAME, "zone")


def test_a_page_without_a_header_is_refused(tmp_path: Path) -> None:
    body = bytearray(make_parquet())
    body[4:8] = b"\xff" * 4
    (tmp_path / NAME).write_bytes(body)
    with pytest.raises(StorageError, match="column 'zone' is cut or damaged"):
        read(tmp_path / NAME, "zone")


class OpenKeys(KmsClient):
    """Keeps keys as they are."""

    def wrap_key(self, key: bytes, name: str) -> bytes:
        return key

    def unwrap_key(self, key: bytes, name: str) -> bytes:
        return key


@pytest.mark.parametrize("column", ["zone", "miles"])
def test_an_encrypted_column_is_called_that_where_it_is_read(column: str, tmp_path: Path) -> None:
    table = pq.read_table(io.BytesIO(make_parquet()))
    way = EncryptionConfiguration("f" * 16, column_keys={"c" * 16: [column]}, plaintext_footer=True)
    keys = CryptoFactory(lambda _: OpenKeys())
    properties = keys.file_encryption_properties(KmsConnectionConfig(), way)
    pq.write_table(table, tmp_path / NAME, encryption_properties=properties)
    if column == "zone":
        with pytest.raises(StorageError, match="it is encrypted: write it without encryption"):
            read(tmp_path / NAME, "zone")
    else:
        assert read(tmp_path / NAME, "zone") == {"zone": [7, 9]}


def test_a_footer_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(make_parquet()[:-8] + b"\xff\xff\xff\x7fPAR1")
    with pytest.raises(StorageError, match=r"its footer would have 2,147,483,647 bytes"):
        files.read_schema(tmp_path / NAME)


def test_no_bit_of_a_footer_can_be_flipped_to_a_traceback(tmp_path: Path) -> None:
    content, refused = make_parquet(), 0
    n_bytes = int.from_bytes(content[-8:-4], "little")
    for place in range(8 * (len(content) - 8 - n_bytes), 8 * (len(content) - 8)):
        body = bytearray(content)
        body[place // 8] ^= 1 << place % 8
        (tmp_path / NAME).write_bytes(body)
        try:
            read(tmp_path / NAME, "zone")
        except StorageError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > n_bytes
