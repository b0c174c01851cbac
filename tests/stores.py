"""A store of runs for tests; the conftest.py of a folder that needs it imports the fixtures."""

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
from mlflow import MlflowClient

from storage import terminal

EXPERIMENT = "tests"
# variables that a step or MLflow may set
LEFT_BEHIND = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", terminal.LEVEL, *terminal.OUTPUT_SETTINGS)


class Store(NamedTuple):
    """An MLflow store in its own folder."""

    uri: str
    folder: Path

    def runs(self) -> dict[str, dict[str, Any]]:
        """Read every run: id -> its contents, oldest first."""
        client = MlflowClient(self.uri)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(ids, order_by=["attributes.start_time ASC"])
        return {run.info.run_id: run.to_dictionary() for run in found}

    def experiment(self, name: str) -> str:
        """Make an experiment with its artifacts in the store's folder; return its name."""
        client = MlflowClient(self.uri)
        if not client.get_experiment_by_name(name):
            client.create_experiment(name, (self.folder / "artifacts").as_uri())
        return name

    def registered(self) -> list[str]:
        """List the names of the registered models."""
        return [model.name for model in MlflowClient(self.uri).search_registered_models()]


def copy_empty_store(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> str:
    """Put a database without runs into a folder; return its URI.

    Its tables are created once for all workers of a session, because that takes longer than most
    tests.
    """
    base = tmp_path_factory.getbasetemp()
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "empty.db"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            begun = made.with_suffix(".begun")
            MlflowClient(f"sqlite:///{begun}").search_experiments()
            begun.rename(made)
    shutil.copy(made, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture(scope="session")
def initialised_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests of a worker."""
    folder = tmp_path_factory.mktemp("store")
    store = Store(copy_empty_store(tmp_path_factory, folder), folder)
    store.experiment(EXPERIMENT)
    return store


@pytest.fixture
def store(initialised_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Point this process and its children at that store, as in a fresh shell."""
    mlflow.set_tracking_uri(None)  # use the one that the environment sets, not an earlier test's
    for name in LEFT_BEHIND:
        monkeypatch.setenv(name, "")  # so that whatever a step sets is undone after the test
        monkeypatch.delenv(name)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", initialised_store.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    monkeypatch.setenv("HOME", str(initialised_store.folder))
    monkeypatch.setenv("TAXI_CACHE", str(initialised_store.folder / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield initialised_store
    for number, handler in handlers.items():
        signal.signal(number, handler)
    while mlflow.active_run():
        mlflow.end_run("KILLED")
