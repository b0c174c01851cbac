"""Training, scoring and serving read the same instants from the same file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from steps.common.months import read_month
from taxi import scoring
from taxi.cleaning import clean
from taxi.model import read_frame
from taxi.schema import raw_columns

ZONED = pa.timestamp("us", "UTC")
FORMS: dict[str, Callable[[pa.Array], pa.Array]] = {  # of instants in UTC
    "UTC": lambda at: at,
    "New York": lambda at: at.cast(pa.timestamp("ns", "America/New_York")),
    "Kolkata": lambda at: at.cast(pa.timestamp("ms", "Asia/Kolkata")),
    "clock": lambda at: pc.local_timestamp(at.cast(pa.timestamp("us", "America/New_York"))),
    "clock, text": lambda at: FORMS["clock"](at).cast(pa.string()),
    "Z": lambda at: pc.strftime(at, "%Y-%m-%dT%H:%M:%SZ"),
    "BigQuery": lambda at: pc.strftime(at, "%Y-%m-%d %H:%M:%S UTC"),
    "offsets side by side": lambda at: pc.strftime(
        at.cast(pa.timestamp("s", "America/New_York")), "%Y-%m-%d %H:%M:%S%z"
    ),
    "portal": lambda at: pc.strftime(
        FORMS["clock"](at).cast(pa.timestamp("s")), "%m/%d/%Y %I:%M:%S %p"
    ),
}


def random_instants(seed: int, month: str, n: int = 60) -> pa.Array:
    """Draw whole milliseconds around a month, and around the clock change that March has."""
    start = np.datetime64(f"{month}-01", "ms") - np.timedelta64(2, "D")
    at = start + np.random.default_rng(seed).integers(0, 36 * 86_400, n).astype("m8[s]")
    change = np.datetime64(f"{month}-14T06:30", "ms")  # around the hour that March skips
    at[:8] = change + np.arange(8) * np.timedelta64(15, "m")
    return pa.array(at.astype("M8[us]")).cast(ZONED)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("seed", "month"), enumerate(["2021-03", "2021-07", "2021-11", "2024-02"]))
def test_one_file_means_the_same_instants_to_training_scoring_and_serving(
    form: str, suffix: str, seed: int, month: str, tmp_path: Path
) -> None:
    instants = random_instants(seed, month)
    n = len(instants)
    later = pa.array(instants.to_numpy(False) + np.timedelta64(600, "s")).cast(ZONED)
    columns = [FORMS[form](instants), FORMS[form](later), pa.array([7] * n), pa.array([9] * n)]
    names = [column.name for column in raw_columns("green")]
    table = pa.table([*columns, pa.array([1.5] * n)], names)
    path = tmp_path / f"trips.{suffix}"
    (pq.write_table if suffix == "parquet" else pa_csv.write_csv)(table, path)
    frame = pd.read_parquet(path) if suffix == "parquet" else pd.read_csv(path)

    (cleaned,) = read_month(path, "green", partial(clean, taxi="green", month=month))
    (scored,) = read_month(path, "green", partial(scoring.prepare_batch, taxi="green", month=month))
    served = read_frame(frame, "green").pickup_at

    clock = FORMS["clock"](instants).to_numpy()
    assert np.array_equal(served, clock)
    assert np.array_equal(scored.columns["pickup_at"].to_numpy(), clock)
    in_month = clock.astype("M8[M]") == np.datetime64(month)
    assert 0 < in_month.sum() < n
    kept = cleaned.trips["pickup_at"].to_numpy()
    assert np.array_equal(kept, clock[scored.eligible])
    assert set(kept) <= set(clock[in_month])
    assert len(kept) >= in_month.sum() - 2  # trips across the clock change may be dropped
