"""A tiny month as parquet and as csv, and how to read it back."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import StorageError
from storage.data import files

NAME = "green_tripdata_2021-01.parquet"
CSV = b"pickup,zone,miles\n2021-01-01 00:00:00,7,1.5\n2021-01-01 00:10:00,9,\n"


def make_parquet(zones: pa.Array | None = None) -> bytes:
    zones = pa.array([7, 9], pa.int64()) if zones is None else zones
    sink = io.BytesIO()
    pq.write_table(pa.table({"zone": zones, "miles": pa.array([1.5, None])}), sink)
    return sink.getvalue()


def read(path: Path, *columns: str, **options: int) -> dict[str, list[object]]:
    batches = list(files.read_batches(path, columns, **options))
    return pa.Table.from_batches(batches).to_pydict()


def one_line(caught: pytest.ExceptionInfo[StorageError]) -> str:
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message
