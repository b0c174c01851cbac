"""Functions that make small inputs (a test states only what matters), and pytest's hooks."""

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi import cleaning, schema, simulation
from taxi.schema import Trips

ROOT = Path(__file__).resolve().parent.parent
# on small inputs, threads that wait for each other on a busy machine cost ten times what they gain;
# the variable is read when xgboost and sklearn are first imported, which nothing above does
os.environ.setdefault("OMP_NUM_THREADS", "1")
# without job execution, a server starts eight processes less, five CPU seconds each
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"

# a plugin's session fixture is set up once; one that two conftest.py files import is set up twice
pytest_plugins = ["tests.tracking_server"]


# files that take minutes run first, so that no core waits for one of them at the end
LONGEST = (
    *("test_end_to_end.py", "test_readme_commands.py", "test_hpo.py", "test_register.py"),
    *("test_checks.py", "test_team.py"),
)
# files that share an MLflow server go to the same worker: to start one takes 18 CPU seconds
ON_A_SERVER = (
    *("test_registry_away.py", "test_pipeline.py"),
    *("test_artifacts.py", "test_duplicates.py", "test_registry.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and keep the order of the rest."""
    places = {name: place for place, name in enumerate((*LONGEST, *ON_A_SERVER))}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    named = ((item.path.name, getattr(item, "fixturenames", ())) for item in items)
    asking = {file for file, fixtures in named if "mlflow_server" in fixtures}
    if alone := sorted(asking.difference(ON_A_SERVER)):
        raise pytest.UsageError(f"{alone} would start a server: add it to ON_A_SERVER")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the server that tests' steps are forked from, while this process has no threads.

    Each step is still a fresh process, which imports what the server has not imported yet.
    """
    if "storage.tracking.launching" in sys.modules and sys.platform == "linux":
        from storage.repro import step_key
        from storage.tracking.fork_server import ForkServer

        session.config.add_cleanup(ForkServer(step_key.read_loaded).close)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one worker, and the files that share a server to the same one."""
    from xdist.scheduler import LoadFileScheduling

    class ByServer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "server" if Path(file).name in ON_A_SERVER else file

    return ByServer(config, log) if config.getoption("dist") == "loadfile" else None


def make_trips(n: int = 3, **columns: object) -> Trips:
    """Make n ordinary trips; a column is one value for all trips, or a value for each."""
    ordinary: dict[str, object] = {
        "pickup_at": "2021-01-15T17:45:30",
        "pickup_zone": 74,
        "dropoff_zone": 75,
        "distance_miles": 2.5,
        "trip_minutes": 12.0,
    }
    types = ("datetime64[us]", np.int32, np.int32, np.float64, np.float64)
    values = zip((ordinary | columns).items(), types, strict=True)
    return Trips(
        **{name: np.broadcast_to(np.array(value, t), n).copy() for (name, value), t in values}
    )


def random_trips(n: int, seed: int, n_zones: int = 40) -> Trips:
    """Make random trips between few zones, some with a distance that no meter should show."""
    rng = np.random.default_rng(seed)
    miles = rng.lognormal(0.8, 0.7, n)
    miles[rng.random(n) < 0.15] = rng.choice([0.0, -1.0, 100.0, np.nan])
    seconds = rng.integers(0, 28 * 86_400, n)
    return make_trips(
        n,
        pickup_at=np.datetime64("2021-01-01") + seconds.astype("m8[s]"),
        pickup_zone=rng.integers(1, n_zones, n),
        dropoff_zone=rng.integers(1, n_zones, n),
        distance_miles=miles,
        trip_minutes=rng.uniform(1, 60, n),
    )


def make_raw(n: int = 3, taxi: str = "green", **columns: object) -> pa.RecordBatch:
    """Make n raw rows as the TLC writes them; columns by role, one value for all or one for each.

    Optional columns with neither a given nor an ordinary value are left out.
    """
    ordinary: dict[str, object] = {
        "pickup_at": "2021-01-15 17:45:00",
        "dropoff_at": "2021-01-15 17:57:00",
        "pickup_zone": 74,
        "dropoff_zone": 75,
        "distance_miles": 2.5,
        "trip_seconds": 720.0,
        "is_shared": "N",
    }
    given = ordinary | columns
    arrays, names = [], []
    for column in schema.raw_columns(taxi):
        if column.role not in given and not column.is_required:
            continue
        kind = pa.string() if pa.types.is_boolean(column.type) else column.type
        arrays.append(_raw_array(given[column.role], kind, n))
        names.append(column.name)
    return pa.RecordBatch.from_arrays(arrays, names)


def _raw_array(value: object, kind: pa.DataType, n: int) -> pa.Array:
    if isinstance(value, pa.Array):
        return value
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value] * n
    if pa.types.is_timestamp(kind):
        return pa.array([None if v is None else np.datetime64(v, "us") for v in values], kind)
    return pa.array(values, kind)


@cache
def simulated_trips(month: str, n: int = 3_000, taxi: str = "green") -> Trips:
    """Simulate and clean a small month."""
    batches = simulation.month_batches(month, n, 42, taxi=taxi)
    kept = [cleaning.clean(batch, taxi=taxi, month=month).trips for batch in batches]
    return schema.to_trips(pa.Table.from_batches(kept))


def real_month(month: str) -> pa.Table:
    """Read a month of the TLC's green trips; skip the test if there is none.

    Months are in the folder TAXI_DATA, by default ../shared/data beside the checkout.
    """
    folder = Path(os.environ.get("TAXI_DATA") or ROOT.parent / "shared" / "data")
    path = folder / f"green_tripdata_{month}.parquet"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {folder}: set TAXI_DATA to a folder of TLC months")
    return pq.read_table(path)
