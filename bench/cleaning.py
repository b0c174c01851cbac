"""Cost of cleaning a month in memory, relative to just decoding the columns it needs."""

from collections.abc import Iterator
from statistics import median
from time import perf_counter

import pyarrow as pa
import pyarrow.parquet as pq

from bench import DATA, Result
from taxi import schema
from taxi.cleaning import clean

N_COPIES, N_PAIRS, BATCH_ROWS = 20, 9, 131_072


def measure() -> Iterator[Result]:
    """Time decode, and decode + clean, alternately on 20 copies of 2023-01."""
    month = pq.read_table(DATA / "green_tripdata_2023-01.parquet")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables([month] * N_COPIES), sink)
    file = sink.getvalue()
    ratios = []
    for _ in range(N_PAIRS):
        start = perf_counter()
        for _batch in decode(file):
            pass
        middle = perf_counter()
        for batch in decode(file):
            clean(batch, taxi="green", month="2023-01")
        ratios.append((perf_counter() - middle) / (middle - start))
    what = f"decode + clean of {month.num_rows * N_COPIES:,} rows, over decode alone"
    yield Result(what, f"{median(ratios):.2f}x", "5x")


def decode(file: pa.Buffer) -> Iterator[pa.RecordBatch]:
    """Read the needed columns batch by batch."""
    columns = [column.name for column in schema.raw_columns("green")]
    return pq.ParquetFile(pa.BufferReader(file)).iter_batches(BATCH_ROWS, columns=columns)
