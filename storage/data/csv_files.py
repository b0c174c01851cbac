"""Reads csv as people write it: separator and encoding are detected from its start."""

import codecs
import csv
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from storage import one_line
from storage.data.streams import guess_kind, is_gzipped, open_bytes

BLOCK_BYTES = 8 << 20  # read at once; no line may be longer
HEAD_BYTES = 256 << 10  # the header must end within these
MAX_COLUMNS = 2_000
SEPARATORS = ",;\t|"
# pyarrow knows the usual words for missing values, but not that of MySQL and Hive
NULLS = [*pa_csv.ConvertOptions().null_values, "\\N"]
LINE_END = re.compile(r"\r\n|\n|\r")
BLOCK_END = "end of block"  # in a row added to each block, which an unclosed quote would swallow


class Layout(NamedTuple):
    """How a csv is written."""

    names: list[str]  # of the columns, as its header has them
    separator: str
    encoding: str
    header: bytes  # as UTF-8
    header_line: int  # counted from 0
    n_fields: int  # of a row, which may have more, empty, fields than the header


def read_layout(path: Path, name: str) -> Layout:
    """Read how a csv is written; `name` is the name that the file will have.

    Raises:
        csv.Error: it does not begin with a header line.
        pa.ArrowException, OSError: it cannot be read.
    """
    with open_bytes(path, gzipped=is_gzipped(path, name)) as stream:
        head = stream.read(HEAD_BYTES)
    if what := guess_kind(head):
        raise csv.Error(f"it is {what}")
    encoding = "utf-16" if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8"
    lines = LINE_END.split(head.decode(encoding, "replace").lstrip("\ufeff"))
    if len(head) == HEAD_BYTES:
        lines.pop()  # the last line is cut off
        if not lines:
            raise csv.Error(f"its first line is longer than {HEAD_BYTES:,} bytes")
    filled = [number for number, line in enumerate(lines) if line.strip()]
    header = lines[filled[0]] if filled else ""
    separator = max(SEPARATORS, key=lambda mark: len(_fields(header, mark)))
    names = [name.strip(' "') if '"' in name else name for name in _fields(header, separator)]
    _check_header(names, header)
    n_fields = len(names)
    row = next((number for number in filled if lines[number] != header), None)
    if row is not None:
        n_fields += _n_extra_fields(_fields(lines[row], separator), names, row)
    return Layout(names, separator, encoding, header.encode(), filled[0], n_fields)


def read_rows(
    path: Path, columns: list[str], layout: Layout, block_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Read some columns of a csv as text, by blocks.

    Args:
        path: of the csv.
        columns: names from the header, in the order wanted.
        layout: how it is written.
        block_bytes: read at once; no line may be longer.
    Yields:
        The rows of each block, every column as text.
    Raises:
        pa.ArrowException, OSError, UnicodeError: it cannot be read, or a line is broken.
    """
    # the header may have a name twice
    positions = [f"c{position}" for position in range(layout.n_fields)]
    requested = [positions[layout.names.index(name)] for name in columns]
    extra = positions[len(layout.names) :]
    reading = pa_csv.ReadOptions(
        use_threads=False,  # only then does an error name its row
        column_names=positions,
    )
    converting = pa_csv.ConvertOptions(
        include_columns=requested + extra,
        column_types=dict.fromkeys(positions, pa.binary()),  # invalid UTF-8 is no error here
        null_values=NULLS,
        strings_can_be_null=True,
    )
    parsing = pa_csv.ParseOptions(delimiter=layout.separator)
    end = layout.separator.join([BLOCK_END] * len(layout.names) + [""] * len(extra)).encode()
    blocks, first = _blocks(path, layout, block_bytes), layout.header_line + 2
    with_header = next(blocks, b"").splitlines(keepends=True)
    rows = filter(None, chain([b"".join(with_header[first - 1 :])], blocks))
    for content in (_without_repeated_headers(block, layout.header) for block in rows):
        reading.block_size = len(content) + len(end) + 2
        try:
            table = pa_csv.read_csv(_in_memory(content, b"\n", end), reading, parsing, converting)
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(_with_line(one_line(error), content, first)) from error
        block = _without_end(table, content, first)
        first += content.count(b"\n") or content.count(b"\r")
        _check_extra_fields(block, extra)
        texts = [_text(block.column(position).combine_chunks()) for position in requested]
        yield _without_headers(pa.RecordBatch.from_arrays(texts, columns))


def _blocks(path: Path, layout: Layout, block_bytes: int) -> Iterator[bytes]:
    """Read a csv in blocks of whole lines.

    All in this thread: pyarrow's streaming reader reads ahead in a thread of its own, and sometimes
    crashes or hangs if it is closed early while Python unpacks or decodes for it.
    """
    held = b""
    for chunk in _chunks(path, layout.encoding, block_bytes):
        end = held.rfind(b"\n") + 1 or held.rfind(b"\r") + 1
        if end:
            yield held[:end]
        elif len(held) >= block_bytes:
            raise pa.ArrowInvalid(f"a line is longer than {block_bytes:,} bytes")
        held = held[end:] + chunk
    if held:
        yield held


def _chunks(path: Path, encoding: str, n_bytes: int) -> Iterator[bytes]:
    """Read a csv in chunks, converted to UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    with open_bytes(path, gzipped=is_gzipped(path, path.name)) as stream:
        while chunk := stream.read(n_bytes):
            yield chunk if encoding == "utf-8" else decoder.decode(chunk).encode()
        decoder.decode(b"", final=True)  # refuses half a character


def _without_repeated_headers(content: bytes, header: bytes) -> bytes:
    """Empty each line of a block that repeats the header, which may be shorter than the rows."""
    if header not in content:
        return content
    lines = content.splitlines(keepends=True)
    return b"".join(
        line.replace(header, b"") if line.rstrip(b"\r\n") == header else line for line in lines
    )


def _in_memory(*parts: bytes) -> pa.BufferReader:
    """Copy bytes into pyarrow's own memory, which its threads can free without Python."""
    with pa.BufferOutputStream() as memory:
        for part in parts:
            memory.write(part)
        return pa.BufferReader(memory.getvalue())


def _with_line(reason: str, content: bytes, first: int) -> str:
    """Name the file's line in an error, not the block's row; the block begins at line `first`."""
    row = re.search(r"Row #([0-9]+): ", reason)
    if not row:
        return reason
    rest = reason[row.end() :].partition(f" {BLOCK_END}")[0]  # the added row is not in the file
    return f"line {_line_in(content, first, int(row[1]) - 1)}: {rest}"


def _line_in(content: bytes, first: int, row: int) -> int | None:
    """Return the line of a block's row, counted from 0; the block begins at line `first`."""
    # pyarrow makes no row of an empty line, such as the second one of old TLC files
    filled = (number for number, line in enumerate(content.splitlines(), first) if line)
    return next(islice(filled, row, None), None)


def _without_end(table: pa.Table, content: bytes, first: int) -> pa.Table:
    """Remove the row that was added to a block.

    Raises:
        pa.ArrowInvalid: an unclosed quote has swallowed it, with all lines after the quote.
    """
    last = len(table) - 1
    if table.column(0)[last].as_py() != BLOCK_END.encode():
        line = _line_in(content, first, last)
        raise pa.ArrowInvalid(f"line {line}: a quote is opened that its line does not close")
    return table.slice(0, last)


def line_of(path: Path, row: int) -> int | None:
    """Return the line, counted from 1, of a row, counted from 0; None if there is no such row."""
    layout = read_layout(path, path.name)
    blocks = _blocks(path, layout, BLOCK_BYTES)
    lines = enumerate(chain.from_iterable(map(bytes.splitlines, blocks)), 1)
    below = islice(lines, layout.header_line + 1, None)
    rows = (number for number, line in below if line and line != layout.header)
    return next(islice(rows, row, None), None)


def _fields(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _check_header(names: list[str], line: str) -> None:
    """Refuse a line that is no header: trips have numbers in it, prose has no second column."""
    named = [name for name in names if name.strip()]
    if len(named) < 2 or not all(re.match(r"\s*[^\W\d]", name) for name in named):
        raise csv.Error(f"its first line is no header: {line[:80]!r}")
    if len(names) > MAX_COLUMNS:
        raise csv.Error(f"it has {len(names):,} columns, and no file of trips {MAX_COLUMNS:,}")


def _n_extra_fields(row: list[str], names: list[str], line: int) -> int:
    """Count the empty fields of the first row beyond those of the header."""
    extra = row[len(names) :]
    if any(field.strip() for field in extra):
        raise csv.Error(f"line {line + 1} has {len(row)} fields, and its header {len(names)}")
    return len(extra)


def _check_extra_fields(block: pa.Table, positions: list[str]) -> None:
    for position in positions:
        values = block.column(position)
        if any(value.strip() for value in values.unique().drop_null().to_pylist()):
            raise pa.ArrowInvalid("a row has a value beyond the columns that its header names")


def _text(values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:  # not UTF-8, such as a name in Latin-1
        texts = [None if v is None else v.decode("utf-8", "replace") for v in values.to_pylist()]
        return pa.array(texts, pa.string())


def _without_headers(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Leave out rows that repeat the header, as in concatenated files."""
    is_header = None
    for name, values in zip(rows.schema.names, rows.columns, strict=True):
        is_name = pc.equal(values, name).fill_null(False)
        if not pc.any(is_name).as_py():
            return rows
        is_header = is_name if is_header is None else pc.and_(is_header, is_name)
    return rows if is_header is None else rows.filter(pc.invert(is_header))
