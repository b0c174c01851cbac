"""Reads files of trips (parquet, csv, csv.gz), and checks whether those, or a zip, are complete."""

import csv
import glob
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from storage import StorageError, one_line, zips
from storage.data import csv_files
from storage.data.parquet_files import open_parquet, read_parquet
from storage.data.streams import CHUNK_BYTES, guess_kind, is_gzipped, open_bytes

CSV_BLOCK_BYTES = csv_files.BLOCK_BYTES


class BrokenFileError(StorageError):
    """A file whose content could be read, but is incomplete or not what its name says."""


def read_schema(path: Path) -> pa.Schema:
    """Read a file's columns and types; every column of a csv is text.

    Raises:
        BrokenFileError: the file is not complete parquet, or not csv with a header line.
        StorageError: it cannot be read: it is missing, access is denied or its disk fails.
    """
    return _schema(path, name=str(path))


def is_complete(path: Path) -> bool:
    """Whether a file begins and, if it is parquet or a zip, ends as it should.

    Raises:
        StorageError: it cannot be read, which says nothing about its content.
    """
    try:
        _check_ends(path, str(path))
    except BrokenFileError:
        return False
    return True


def read_batches(
    path: Path, columns: Sequence[str], *, batch_rows: int = 131_072
) -> Iterator[pa.RecordBatch]:
    """Read some columns, in the order wanted, in memory that does not grow with the file.

    Yields:
        Batches of at most batch_rows rows.
    Raises:
        StorageError: a column is missing, a csv line is broken or a parquet file is damaged.
    """
    names = read_schema(path).names
    if missing := [name for name in columns if name not in names]:
        raise StorageError(f"{path} lacks {missing}; it has {names}. Check the file.")
    read = _csv_batches if _is_csv(path.name) else read_parquet
    try:
        for batch in read(path, list(columns), batch_rows):
            for start in range(0, len(batch), batch_rows):
                yield batch.slice(start, batch_rows)
    except (pa.ArrowException, OSError, UnicodeError) as error:  # the last for broken UTF-16
        raise StorageError(
            f"Cannot read {path}: {one_line(error)}. Mend or replace the file."
        ) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path, which is renamed after the body.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {one_line(error)}. Check the folder and the space on its disk."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def discard_unfinished(path: Path) -> None:
    """Remove the temporary files of processes that were killed in atomic_file."""
    for unfinished in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError):
            unfinished.unlink()


def check_complete(path: Path, name: str) -> None:
    """Read a file to its end to check it; `name` is the name that the file will have.

    Raises:
        BrokenFileError: it is incomplete, or not what its name says.
        StorageError: it cannot be read.
    """
    _check_ends(path, name)
    try:
        if _is_zip(name):
            _check_members(path)
        with open_bytes(path, gzipped=_is_csv(name) and is_gzipped(path, name)) as stream:
            while stream.read(CHUNK_BYTES):  # a gzip has its checksum at the end
                pass
    except (pa.ArrowException, *zips.DAMAGED_ERRORS) as error:
        raise _unreadable_file_error(error, name) from error


def locate_row(path: Path, row: int) -> str:
    """Say where a row, counted from 0, is in its file: its line in a csv, else its row from 1."""
    return f"line {csv_files.line_of(path, row)}" if _is_csv(path.name) else f"row {row + 1:,}"


def _is_csv(name: str) -> bool:
    return name.lower().endswith((".csv", ".csv.gz"))


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _check_ends(path: Path, name: str) -> None:
    if not _is_zip(name):
        _schema(path, name)
        return
    try:
        zipfile.ZipFile(path).close()
    except zips.DAMAGED_ERRORS as error:
        raise _unreadable_file_error(error, name) from error


def _check_members(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        zips.check_methods(archive)
        if spoilt := archive.testzip():
            raise zipfile.BadZipFile(f"{spoilt} in it is damaged")


def _schema(path: Path, name: str) -> pa.Schema:
    """Read the schema of a file that may not have its final name yet."""
    try:
        if _is_csv(name):
            names = csv_files.read_layout(path, name).names
            return pa.schema([(column, pa.string()) for column in names])
        with pa.input_stream(str(path), compression=None) as stream:
            head = stream.read(CHUNK_BYTES)
        if not head.startswith(b"PAR1"):
            raise pa.ArrowInvalid(
                f"it is {guess_kind(head) or 'something else: it does not begin as parquet does'}"
            )
        with open_parquet(path) as parquet:
            return parquet.schema_arrow
    except (pa.ArrowException, OSError, csv.Error, UnicodeDecodeError) as error:
        raise _unreadable_file_error(error, name) from error


def _unreadable_file_error(error: Exception, name: str) -> StorageError:
    """Distinguish a file that cannot be read from one whose content is broken."""
    # pyarrow raises OSError for both; only the system's own errors have a number
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(
            f"Cannot read {name}: {one_line(error)}. Check your access and its disk."
        )
    kind = "csv file" if _is_csv(name) else "zip" if _is_zip(name) else "parquet file"
    return BrokenFileError(f"{name} is not a whole {kind}: {one_line(error)}. Replace the file.")


def _csv_batches(path: Path, columns: list[str], _batch_rows: int) -> Iterator[pa.RecordBatch]:
    layout = csv_files.read_layout(path, path.name)
    return csv_files.read_rows(path, columns, layout, CSV_BLOCK_BYTES)
