"""Whatever is created on a server exists only once, even if the server's answer was lost."""

from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from storage.tracking import duplicates, runs
from storage.tracking.registry import DONE, PROMOTE, ROLL_BACK, Registry
from storage.tracking.trials import TrialRuns
from tests.stores import EXPERIMENT, Store
from tests.tracking_server import Line, line_to


@pytest.fixture
def line(store: Store, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """A line to a server that has the experiment; the first answer to each creation is lost."""
    client = MlflowClient(mlflow_server)
    if not client.get_experiment_by_name(EXPERIMENT):
        client.create_experiment(EXPERIMENT)
    with line_to(mlflow_server) as line:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", line.uri)
        # without jitter, or MLflow's retries would wait for up to so many seconds
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
        yield line
        mlflow.set_tracking_uri(None)


def lose_first(line: Line, *ends: str) -> list[str]:
    """Lose the first answer to each request with such a path ending; return those lost so far."""
    lost: list[str] = []

    def loses(method: str, path: str) -> bool:
        found = [f"{method} {end}" for end in ends if path.endswith(end)]
        new = [request for request in found if request not in lost]
        lost.extend(new)
        return bool(new)

    line.loses = loses
    return lost


def running(tag: str, value: str) -> list[str]:
    """List the statuses of the runs with this tag."""
    experiment = mlflow.get_experiment_by_name(EXPERIMENT).experiment_id
    found: Sequence[Run] = MlflowClient().search_runs([experiment], f"tags.{tag} = '{value}'")
    return sorted(run.info.status for run in found)


def test_a_run_made_twice_is_there_once_and_its_double_is_closed(line: Line) -> None:
    lost = lose_first(line, "runs/create")
    with runs.StepRun("hpo", "Ada once"):
        lost.clear()
        with runs.child_run("refit", {"mark": "made twice"}):
            lost.clear()
            with TrialRuns("key twice", {"model": "none"}) as log:
                log.start(0)
                assert running("search_key", "key twice") == ["KILLED", "RUNNING"]
                log.finish(0, params={"eta": 0.3}, metrics={"rmse": 6.0}, curve={}, tags={})
            assert set(log.recorded()) == {0}
    assert lost == ["POST runs/create"]
    assert running("search_key", "key twice") == ["FINISHED", "KILLED"]
    assert running("mark", "made twice") == ["FINISHED", "KILLED"]
    assert running("developer", "Ada once").count("RUNNING") == 0


def test_a_run_that_mlflow_run_made_twice_is_there_once(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, experiment = MlflowClient(), mlflow.get_experiment_by_name(EXPERIMENT).experiment_id
    lost = lose_first(line, "runs/create")
    made = client.create_run(experiment, tags={"mark": "of the command line"})
    client.log_param(made.info.run_id, "seed", "42")
    other = client.create_run(
        experiment, tags={"mark": "of the command line"}, start_time=made.info.start_time
    )
    client.log_param(other.info.run_id, "seed", "43")  # somebody else's, in the same millisecond
    assert lost == ["POST runs/create"]
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    with runs.StepRun("main", ""):
        pass
    assert running("mark", "of the command line") == ["FINISHED", "KILLED", "RUNNING"]
    client.set_terminated(other.info.run_id)


def test_an_experiment_made_twice_is_the_one_that_the_run_is_in(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "made twice")
    lost = lose_first(line, "experiments/create")
    with runs.StepRun("main", ""):
        assert runs.experiment_name() == "made twice"
    assert lost == ["POST experiments/create"]


class Nothing(mlflow.pyfunc.PythonModel):
    """A model that predicts nothing."""

    def predict(self, context: object, model_input: list[str]) -> list[str]:
        return []


def log_nothing(run: Run) -> str:
    save = partial(mlflow.pyfunc.save_model, python_model=Nothing(), pip_requirements=[])
    return duplicates.log_model_once(run.info.run_id, "model", save)


@pytest.mark.parametrize("end", ["logged-models", "outputs", "logged-models/search"])
def test_a_model_is_logged_once_whichever_answer_is_lost(line: Line, end: str) -> None:
    with runs.StepRun("hpo", ""):
        mlflow.log_metric("rmse", 6.5)
        lost, run = lose_first(line, end), runs.active()
        uri = log_nothing(run)
        assert lost == [f"POST {end}"]
        models = MlflowClient().search_logged_models(
            [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
        )
    assert [(model.model_id, str(model.status)) for model in models] == [
        (uri.removeprefix("models:/"), "READY")
    ]
    outputs = mlflow.get_run(run.info.run_id).outputs.model_outputs
    assert [f"models:/{output.model_id}" for output in outputs] == [uri]
    assert [(metric.key, metric.value) for metric in models[0].metrics] == [("rmse", 6.5)]
    assert mlflow.pyfunc.load_model(uri).metadata.run_id == run.info.run_id


@pytest.mark.parametrize("what", ["log_outputs", "log_model_artifacts", "finalize_logged_model"])
def test_a_model_that_the_store_does_not_take_whole_is_called_failed(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    given = getattr(MlflowClient, what)
    broken = [MlflowException("no")]

    def refuse(*args: object) -> object:
        if broken:
            raise broken.pop()
        return given(*args)

    monkeypatch.setattr(MlflowClient, what, refuse)
    with runs.StepRun("hpo", ""), pytest.raises(MlflowException, match="no"):
        log_nothing(run := runs.active())
    (model,) = MlflowClient().search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
    )
    assert model.status == LoggedModelStatus.FAILED


@pytest.fixture
def versions(line: Line, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registered model on that server, with one version of another model."""
    monkeypatch.setattr(mlflow.tracking._model_registry.utils, "_registry_uri", line.uri)
    client = MlflowClient()
    experiment = mlflow.get_experiment_by_name(EXPERIMENT).experiment_id
    run_id = client.create_run(experiment).info.run_id
    name = f"twice {run_id}"
    client.create_registered_model(name)
    client.create_model_version(name, "s3://nowhere/m")
    client.set_terminated(run_id)
    return Registry(name, run_id=run_id, developer="Ada")


def numbers(registry: Registry) -> list[int]:
    found = registry.client.search_model_versions(f"name = '{registry.name}'")
    return sorted(int(version.version) for version in found)


def test_a_version_made_twice_is_there_once(line: Line, versions: Registry) -> None:
    lost = lose_first(line, "model-versions/create")
    assert versions.add_version("s3://nowhere/model", "c0ffee") == "2"
    assert lost == ["POST model-versions/create"]
    assert numbers(versions) == [1, 2]
    assert versions.find_version("c0ffee").version == "2"


@pytest.mark.parametrize(("may_delete", "kept"), [(True, "9"), (False, "10")])
def test_which_version_came_first_is_told_by_its_number(may_delete: bool, kept: str) -> None:
    deleted: list[str] = []

    def delete(_name: str, version: str) -> None:
        if not may_delete:
            raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)
        deleted.append(version)

    client: Any = SimpleNamespace(delete_model_version=delete)
    assert duplicates.keep_first_version(client, "model", ["10", "9"]) == kept
    assert deleted == (["10"] if may_delete else [])


def test_a_version_whose_double_was_deleted_without_an_answer_is_there_once(
    line: Line, versions: Registry
) -> None:
    lost = lose_first(line, "model-versions/create", "model-versions/delete")
    assert versions.add_version("s3://nowhere/model", "c0ffee") == "2"
    assert lost == ["POST model-versions/create", "DELETE model-versions/delete"]
    assert numbers(versions) == [1, 2]


def test_a_promotion_and_its_rollback_are_each_told_once_whatever_answers_are_lost(
    line: Line, versions: Registry
) -> None:
    new = versions.add_version("s3://nowhere/model", "c0ffee")
    lost: set[str] = set()
    versions.promote("1", action=PROMOTE, why="better")
    versions.set_challenger(new)
    for change in (
        partial(versions.promote, new, action=PROMOTE, why="better"),
        partial(versions.roll_back, "1", why="worse"),
    ):
        once = lose_first(line, "/set-tag", "/delete-tag", "/alias")
        with versions.lock():
            change()
        lost |= set(once)
    assert lost == {"POST /set-tag", "DELETE /delete-tag", "POST /alias", "DELETE /alias"}
    told = [(entry.action, entry.version, entry.state) for entry in versions.history()]
    assert told == [(PROMOTE, "1", DONE), (PROMOTE, new, DONE), (ROLL_BACK, "1", DONE)]
    assert versions.champion().version == "1"
    aliases = versions.client.get_registered_model(versions.name).aliases
    assert aliases == {"champion": "1"}


def test_who_may_not_delete_versions_goes_on_with_the_one_that_is_found_by_its_bytes(
    line: Line, versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(MlflowClient, "delete_model_version", refuse)
    lose_first(line, "model-versions/create")
    number = versions.add_version("s3://nowhere/model", "c0ffee")
    assert numbers(versions) == [1, 2, 3]
    assert versions.find_version("c0ffee").version == number
