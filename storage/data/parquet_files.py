"""Reads parquet within bounds: few bytes can claim any number of rows, of zeros or of long texts.

The unpacked size of a page is in its own header, which readers go by, whatever the footer says.
pyarrow does not expose these headers.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.data.streams import CHUNK_BYTES, max_unpacked_bytes
from storage.data.thrift import Fields, read_struct

# the most memory that a footer may claim: a month has some twenty columns
FOOTER_LIMITS = {"thrift_string_size_limit": 16 << 20, "thrift_container_size_limit": 200_000}
MAX_PAGE = 64 << 20  # bytes unpacked; writers make pages of a few MB at most
MAX_TEXT = 64 << 20  # bytes in a batch; reading and parsing it takes several times as many
TEXTS = {
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view()),
}
VALUE_BYTES = 8  # of a number or a time, in memory
END_BYTES = 8  # the length of the footer, and PAR1
MAX_FOOTER = 4 << 20
# of the format: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
GROUPS, CHUNKS, METADATA, CRYPTO = 4, 1, 3, 8  # field numbers from the footer to a chunk
N_IN_CHUNK, DATA_AT, DICTIONARY_AT = 5, 9, 11  # and those of a chunk
N_BYTES, N_PACKED, DATA, DATA_2 = 2, 3, 5, 8  # fields of a page's header
N_VALUES, ENCODINGS = 1, {DATA: 2, DATA_2: 4}  # fields of these two kinds of header
DICTIONARY = None  # in place of a page's encoding
DELTA_BYTE_ARRAY = 7  # each text as a prefix of the one before, and a rest
AS_DICTIONARY = {DICTIONARY, 0, 2, 8}  # what pyarrow reads as a dictionary: plain, dictionaries


class Page(NamedTuple):
    """What the header of a page says."""

    n_bytes: int  # unpacked
    n_values: int
    encoding: int | None  # DICTIONARY if it is a dictionary page


class ColumnSize(NamedTuple):
    """The sums over the pages of a column."""

    n_bytes: int  # in memory
    longest: int  # bytes of the largest page whose text may be repeated in many rows
    encodings: set[int | None]


class ReadPlan(NamedTuple):
    """How to read columns so that no batch is too large."""

    batch_rows: int
    dictionaries: list[str]  # columns to read so: each text once for all its rows


def open_parquet(path: Path, **options: Any) -> pq.ParquetFile:
    """Open a file, if its footer is within bounds.

    Raises:
        pa.ArrowException, OSError: it is incomplete, or cannot be read.
    """
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - END_BYTES, 0))
        n_bytes = int.from_bytes(file.read(4), "little")
    if n_bytes > MAX_FOOTER:
        raise pa.ArrowInvalid(f"its footer would have {n_bytes:,} bytes")
    return pq.ParquetFile(path, **FOOTER_LIMITS, **options)


def read_parquet(path: Path, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Read some columns, batch_rows rows at a time or fewer.

    Raises:
        pa.ArrowException, OSError: it cannot be read, unpacks to too much, or has another number of
            rows than its footer says.
    """
    with open_parquet(path) as parquet:
        metadata = parquet.metadata
        schema = pa.schema([parquet.schema_arrow.field(name) for name in columns])
        batch_rows, dictionaries = plan_read(path, metadata, columns, batch_rows)
    # pre_buffer, on by default, would hold these columns of every row group at once
    options = {"pre_buffer": False, "buffer_size": CHUNK_BYTES, "read_dictionary": dictionaries}
    with open_parquet(path, **options) as parquet:
        n_rows, left = 0, max_unpacked_bytes(path.stat().st_size)
        for batch in parquet.iter_batches(batch_rows, columns=columns, use_threads=True):
            n_rows, left = n_rows + len(batch), left - _n_bytes(batch, min(left, MAX_TEXT))
            values = [
                _plain(values, field.type) for values, field in zip(batch, schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(values, schema=schema)
    if n_rows != metadata.num_rows:
        raise pa.ArrowInvalid(f"its footer says {metadata.num_rows:,} rows, and it has {n_rows:,}")


def plan_read(
    path: Path, metadata: pq.FileMetaData, columns: list[str], batch_rows: int
) -> ReadPlan:
    """Decide how to read columns, batch_rows rows at a time or fewer.

    Raises:
        pa.ArrowInvalid: the pages unpack to too much, or one has no valid header.
    """
    left, dictionaries = max_unpacked_bytes(path.stat().st_size), []
    fields = [metadata.schema.column(place) for place in range(metadata.num_columns)]
    places = {field.path: place for place, field in enumerate(fields)}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        groups = _row_groups(data)
        for name in columns:
            if name not in places:
                raise pa.ArrowInvalid(f"column {name!r} holds more than a value in each row")
            field = fields[places[name]]
            column_size = _sum_pages(_pages(data, groups, places[name]), name, left)
            left -= column_size.n_bytes
            if field.physical_type == "BYTE_ARRAY" and column_size.encodings <= AS_DICTIONARY:
                dictionaries.append(name)
            elif field.physical_type.endswith("BYTE_ARRAY"):
                longest = field.length if field.length > 0 else column_size.longest
                batch_rows = min(batch_rows, max(MAX_TEXT // max(longest, 1), 1))
    return ReadPlan(batch_rows, dictionaries)


def _sum_pages(pages: Iterator[Page], name: str, max_bytes: int) -> ColumnSize:
    """Add up the pages of a column, which may have `max_bytes` bytes in all.

    Raises:
        pa.ArrowInvalid: one page or all of them are too large, or a page is damaged.
    """
    n_bytes, longest, encodings = 0, 0, set()
    for page in _undamaged(pages, name):
        encodings.add(page.encoding)
        n_bytes += max(page.n_bytes, page.n_values * VALUE_BYTES)
        if page.n_bytes > MAX_PAGE or n_bytes > max_bytes:
            size = f"{n_bytes:,} bytes in memory and more, which is beyond all months"
            raise pa.ArrowInvalid(f"column {name!r} unpacks to {size}")
        if page.encoding in (DICTIONARY, DELTA_BYTE_ARRAY):
            longest = max(longest, page.n_bytes)
    return ColumnSize(n_bytes, longest, encodings)


def _undamaged(pages: Iterator[Page], name: str) -> Iterator[Page]:
    try:
        yield from pages
    except (LookupError, TypeError, ValueError) as error:
        raise pa.ArrowInvalid(f"column {name!r} is cut or damaged") from error


def _row_groups(data: mmap.mmap) -> list[Fields]:
    """Read the row groups from the footer.

    Raises:
        pa.ArrowInvalid: it is damaged.
    """
    at = len(data) - END_BYTES - int.from_bytes(data[-END_BYTES:-4], "little")
    try:
        groups: list[Fields] = read_struct(data, at)[0].get(GROUPS, [])
    except IndexError as error:
        raise pa.ArrowInvalid("its footer is damaged") from error
    return groups


def _pages(data: mmap.mmap, groups: list[Fields], place: int) -> Iterator[Page]:
    """Read the headers of a column's pages, in each row group up to its last value.

    Raises:
        LookupError, TypeError, ValueError: a page has no valid header.
        pa.ArrowNotImplementedError: the column is encrypted.
    """
    for group in groups:
        if CRYPTO in group[CHUNKS][place]:  # possible even if the footer can be read
            raise pa.ArrowNotImplementedError("it is encrypted: write it without encryption")
        chunk = group[CHUNKS][place][METADATA]
        if not (n_left := chunk[N_IN_CHUNK]):
            continue  # a row group without rows may have no pages
        # some writers give 0 for no dictionary
        at = min(filter(None, (chunk[name] for name in (DATA_AT, DICTIONARY_AT) if name in chunk)))
        while n_left > 0:
            header, at = read_struct(data, at)
            kind = DATA if DATA in header else DATA_2
            header_fields = header.get(kind, {N_VALUES: 0, ENCODINGS[kind]: DICTIONARY})
            page = Page(header[N_BYTES], header_fields[N_VALUES], header_fields[ENCODINGS[kind]])
            if min(header[N_PACKED], *page[:2]) < 0:
                raise ValueError("less than nothing")
            yield page
            at, n_left = at + header[N_PACKED], n_left - page.n_values


def _n_bytes(batch: pa.RecordBatch, max_bytes: int) -> int:
    """Return the bytes of a batch with its dictionaries decoded, every row with its own text.

    Raises:
        pa.ArrowInvalid: they are more than `max_bytes`.
    """
    n_bytes = batch.nbytes
    for values in batch:
        if pa.types.is_dictionary(values.type) and values.dictionary.type in TEXTS:
            lengths = pc.binary_length(values.dictionary.cast(pa.large_binary()))
            n_bytes += pc.sum(lengths.take(values.indices)).as_py() or 0
    if n_bytes > max_bytes:
        size = f"{len(batch):,} rows of {', '.join(batch.schema.names)} have {n_bytes:,} bytes"
        raise pa.ArrowInvalid(f"{size}, which is beyond all months")
    return n_bytes


def _plain(values: pa.Array, target: pa.DataType) -> pa.Array:
    """Decode a column that was read as a dictionary to its own type."""
    needs_decoding = pa.types.is_dictionary(values.type) and not pa.types.is_dictionary(target)
    return values.dictionary_decode().cast(target) if needs_decoding else values
