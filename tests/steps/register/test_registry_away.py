"""A registry that goes away while a version is registered."""

import shlex

import mlflow
import pytest
from mlflow import MlflowClient

from tests.steps.lab import GOOD, Lab, Pipelines
from tests.stores import EXPERIMENT, Store
from tests.tracking_server import line_to


@pytest.fixture
def shared(lab: Lab, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab on a server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = MlflowClient(mlflow_server)
    if not client.get_experiment_by_name(EXPERIMENT):
        client.create_experiment(EXPERIMENT)
    return Lab(Store(mlflow_server, lab.store.folder), lab.capfd)


def test_a_registry_that_goes_away_fails_the_run_which_can_be_run_again(
    shared: Lab, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, given = "away", Pipelines().of(shared, GOOD)
    with line_to(mlflow_server) as line:
        monkeypatch.setattr(mlflow.tracking._model_registry.utils, "_registry_uri", line.uri)
        for n_writes in (
            3,
            20,
        ):  # left: a ticket but no version, or a promotion that lacks only its end
            line.writes_left = n_writes
            _, said = shared.register(name, *given, code=2)
            assert said.startswith("register: Cannot use registered model")
            assert shared.aliases(name) in ({}, {"champion": "1"})
            line.mend()
        again = shlex.split(said.rpartition("To judge the same candidates again: ")[2])
        assert again[:2] == ["mlflow", "run"]
        assert again[again.index("-e") + 1] == "register"
        _, said = shared.register(name, *(f"--{word}" for word in again if "=" in word))
        assert f"{name} version 1, alias champion" in said
    assert shared.aliases(name) == {"champion": "1"}
    tags = shared.client.get_registered_model(name).tags
    assert '"begun"' not in "".join(tags.values())
    assert sum('"done"' in value for value in tags.values()) == 1
    assert [key for key in tags if key.startswith("promoting.")] == []
