"""What the tests of score share: a champion, and how to read predictions."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run

from storage.tracking import artifacts
from tests.steps.lab import GOOD, Lab, Pipelines

SIMULATED = "--source=simulated:2000"
APRIL_FILE = "green_tripdata_2021-04.parquet"
WIDE = ("--max_psi=9", "--max_unseen=1", "--max_rmse_rise=9")  # no month counts as drifted


@pytest.fixture
def champion(lab: Lab, pipelines: Pipelines) -> str:
    """Return the parameter that names a champion."""
    if "scored" not in lab.store.registered():
        lab.register("scored", *pipelines.of(lab, GOOD))
    return "--model_uri=models:/scored@champion"


def read_scored(run: Run, month: str, taxi: str = "green") -> pa.Table:
    """Read the predictions of a month among a run's artifacts."""
    name = f"predictions/{taxi}_predictions_{month}.parquet"
    with artifacts.open_file(run.info.run_id, name) as path:
        return pq.read_table(Path(path))
