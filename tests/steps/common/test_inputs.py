"""How steps read the trips that preprocess has written."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steps.common.inputs import read_trips
from taxi import schema
from tests.conftest import random_trips


def test_trips_are_read_batch_by_batch_as_they_were_written(tmp_path: Path) -> None:
    trips, path = random_trips(1_000, seed=1), tmp_path / "train.parquet"
    miles = np.where(np.arange(1_000) % 7 == 0, np.nan, trips.distance_miles)
    wanted = replace(trips, distance_miles=miles)
    columns = {name: pa.array(getattr(wanted, name)) for name in schema.TRIPS.names}
    columns["distance_miles"] = pa.array(wanted.distance_miles, from_pandas=True)
    pq.write_table(pa.table(columns, schema=schema.TRIPS), path, row_group_size=300)
    read = read_trips(path)
    for field in fields(wanted):
        found, there = (getattr(one, field.name) for one in (read, wanted))
        assert (found.dtype, found.tobytes()) == (there.dtype, there.tobytes())
