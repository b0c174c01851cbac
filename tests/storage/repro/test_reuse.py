"""When the result of a step is reused, and when the step must run."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    ENDPOINT_NOT_FOUND,
    PERMISSION_DENIED,
    RESOURCE_DOES_NOT_EXIST,
)

from storage import StorageError
from storage.repro import reuse
from storage.repro.reuse import ReuseDecision
from storage.repro.step_key import StepKey
from storage.tracking import artifacts, runs, tags
from tests.stores import EXPERIMENT, Store


@pytest.fixture
def key(request: pytest.FixtureRequest, store: Store) -> StepKey:
    """Make a key that no other test has."""
    return StepKey("preprocess", {"taxi": request.node.name}, {}, {"taxi/cleaning.py": "1"}, {})


def finish(key: StepKey, developer: str = "ana", **tags: str) -> Run:
    """Make a finished run of a step with this key, an artifact and a child run."""
    with runs.StepRun(key.step, developer):
        reuse.tag_key(key)
        mlflow.log_text("trips", "data/train.parquet")
        mlflow.set_tags(tags)
        with runs.child_run("mean", {}):
            mlflow.log_metric("rmse", 1)
        run_id = mlflow.active_run().info.run_id
        reuse.record_outputs()
    return mlflow.get_run(run_id)


def decide(key: StepKey) -> ReuseDecision:
    return reuse.find_reusable(key, mlflow.get_experiment_by_name(EXPERIMENT).experiment_id)


def refusal(key: StepKey) -> str:
    decision = decide(key)
    assert decision.run is None
    assert decision.summary == f"runs, {decision.reason}"
    return decision.line


def artifact(run: Run, name: str) -> Path:
    with artifacts.open_file(run.info.run_id, name) as path:
        return path


# --- hits


def test_a_finished_run_with_the_same_key_is_taken_and_the_line_says_whose(key: StepKey) -> None:
    run = finish(key)
    decision = decide(key)
    assert decision.run.info.run_id == run.info.run_id
    assert (decision.step, decision.reason) == ("preprocess", "seconds ago, ana")
    assert decision.line == f"preprocess: reused {run.info.run_id[:8]}… (seconds ago, ana)"


@pytest.mark.parametrize(
    ("seconds", "said"), [(59, "seconds"), (61, "1 min"), (7_300, "2 h"), (200_000, "2 d")]
)
def test_the_age_of_a_run_is_told_in_one_word(key: StepKey, seconds: float, said: str) -> None:
    ended = finish(key).info.end_time / 1000
    with patch("storage.repro.reuse.time.time", return_value=ended + seconds):
        assert f"({said} ago, ana)" in decide(key).summary


def test_another_commit_with_the_same_content_hits(key: StepKey) -> None:
    run = finish(key, **{"mlflow.source.git.commit": "c0ffee", "git_dirty": "true"})
    assert decide(key).run.info.run_id == run.info.run_id


def test_the_newest_whole_run_is_taken(key: StepKey) -> None:
    whole, broken = finish(key), finish(key)
    artifact(broken, "data/train.parquet").unlink()
    assert decide(key).run.info.run_id == whole.info.run_id


def test_a_hit_costs_one_query_for_the_key(key: StepKey) -> None:
    finish(key)
    asked: list[str] = []
    search = MlflowClient.search_runs

    def count(self: MlflowClient, ids: Any, query: str, **options: Any) -> Any:
        asked.append(query)
        return search(self, ids, query, **options)

    with patch.object(MlflowClient, "search_runs", count):
        assert decide(key).run
    assert [query for query in asked if "step" in query] == [
        f"tags.step_key = '{key.sha256}' and attributes.status = 'FINISHED'"
    ]


# --- misses


def test_a_step_that_never_ran_runs_for_the_first_time(key: StepKey) -> None:
    never = key._replace(step="never")
    assert refusal(never) == "never: runs, for the first time in this experiment"
    assert reuse.find_reusable(key, "").run is None


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("parameters", {"taxi": "yellow"}, "taxi=yellow (was "),
        ("inputs", {"train": "2021-01"}, "train=2021-01 (was not there)"),
        ("code", {"taxi/cleaning.py": "2"}, "taxi/cleaning.py changed"),
        ("environment", {"Python": "3.14"}, "Python=3.14 (was as locked)"),
    ],
)
def test_a_miss_says_what_changed_since_which_run(
    key: StepKey, part: str, value: dict[str, str], said: str
) -> None:
    run = finish(key)
    line = refusal(key._replace(**{part: value}))
    assert said in line
    assert line.endswith(f"since {run.info.run_id[:8]}…")


def test_many_changes_are_counted_not_listed(key: StepKey) -> None:
    finish(key)
    line = refusal(key._replace(code={f"taxi/{name}.py": "2" for name in "abcd"}))
    assert "taxi/a.py changed, taxi/b.py changed and 3 more since" in line


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_a_run_that_has_not_finished_is_never_taken(key: StepKey, status: str) -> None:
    run_id = finish(key).info.run_id
    MlflowClient().update_run(run_id, status)
    assert refusal(key) == f"preprocess: runs, {run_id[:8]}… with the same key is {status}"


def test_a_deleted_run_is_not_taken_and_the_line_says_that_there_was_one(key: StepKey) -> None:
    run_id = finish(key).info.run_id
    MlflowClient().delete_run(run_id)
    assert refusal(key) == f"preprocess: runs, {run_id[:8]}… with the same key is deleted"


@pytest.mark.parametrize("status", ["RUNNING", "FAILED"])
def test_a_miss_is_compared_with_a_run_that_came_to_its_work(key: StepKey, status: str) -> None:
    """Not with a later run that was refused, or has not recorded its key yet."""
    run = finish(key)
    with runs.StepRun(key.step, "ben"):
        later = mlflow.active_run().info.run_id
    MlflowClient().update_run(later, status)
    line = refusal(key._replace(parameters={"taxi": "yellow"}))
    assert line.endswith(f"since {run.info.run_id[:8]}…")


@pytest.mark.parametrize(
    ("part", "name"), [("parameters", "taxi"), ("inputs", "taxi"), ("parameters", "model_name")]
)
def test_a_miss_is_compared_with_the_last_run_of_the_same_taxi(
    key: StepKey, part: str, name: str
) -> None:
    """If a team trains two taxis in one experiment, the other's runs do not explain a miss.

    For preprocess the taxi is a parameter; later steps have it from their input trips, and register
    has the name of a model, which is of one taxi.
    """
    step = key._replace(step=f"step by {part} {name}", parameters={})
    green, yellow = (step._replace(**{part: {name: taxi}}) for taxi in ("green", "yellow"))
    run = finish(green, **{name: "green"})
    finish(yellow, **{name: "yellow"})
    line = refusal(green._replace(code={"taxi/cleaning.py": "2"}))
    assert line == f"{step.step}: runs, taxi/cleaning.py changed since {run.info.run_id[:8]}…"


@pytest.mark.parametrize("status", ["RUNNING", "FAILED"])
def test_where_no_run_came_to_its_work_the_line_says_how_the_last_one_is(
    key: StepKey, status: str
) -> None:
    begun = key._replace(step=f"step of {status}")
    with runs.StepRun(begun.step, "ben"):
        run_id = mlflow.active_run().info.run_id
    MlflowClient().update_run(run_id, status)
    assert refusal(begun) == f"{begun.step}: runs, {run_id[:8]}… is {status}"


def test_a_run_is_deleted_with_the_pipeline_it_belonged_to(key: StepKey) -> None:
    with runs.StepRun("main", "ana"):
        parent_id = mlflow.active_run().info.run_id
        with runs.child_run("register", {}):
            grandparent = {"mlflow.parentRunId": mlflow.active_run().info.run_id}
    run = finish(key, **grandparent)
    assert decide(key).run.info.run_id == run.info.run_id
    MlflowClient().delete_run(parent_id)
    said = f"run {parent_id[:8]}…, which {run.info.run_id[:8]}… belonged to, is deleted"
    assert said in refusal(key)


@pytest.mark.parametrize("damage", ["deleted", "shortened"])
def test_a_run_that_lost_an_artifact_is_not_taken(key: StepKey, damage: str) -> None:
    run = finish(key)
    path = artifact(run, "data/train.parquet")
    path.unlink() if damage == "deleted" else path.write_text("tri")
    assert f"data/train.parquet of {run.info.run_id[:8]}… is gone" in refusal(key)


def test_a_run_whose_list_of_outputs_is_gone_is_not_taken(key: StepKey) -> None:
    artifact(finish(key), tags.OUTPUTS).unlink()
    assert "is missing now" in refusal(key)


NO_ANSWERS = [
    requests.ConnectionError("reset"),
    requests.JSONDecodeError("a login page", "<html>", 0),
    MlflowException("403", error_code=PERMISSION_DENIED),
    MlflowException("404 of a proxy", error_code=ENDPOINT_NOT_FOUND),
    StorageError("it exists, but arrives incomplete"),
]


@pytest.mark.parametrize("error", NO_ANSWERS, ids=str)
@pytest.mark.parametrize(
    "asked",
    ["mlflow.MlflowClient.get_model_version", "storage.tracking.artifacts.list_files"],
)
def test_a_question_that_is_not_answered_is_no_loss(
    key: StepKey, error: Exception, asked: str
) -> None:
    finish(key, version="1", model_name="trips", champion_version="1")
    with patch(asked, side_effect=error), pytest.raises(type(error)):
        decide(key)


def test_a_model_that_the_store_no_longer_has_is_a_loss(key: StepKey) -> None:
    finish(key)
    gone = MlflowException("no such model", error_code=RESOURCE_DOES_NOT_EXIST)
    with patch("storage.tracking.artifacts.list_files", side_effect=gone):
        assert "is missing now" in refusal(key)


def test_a_run_that_lost_a_run_below_it_is_not_taken(key: StepKey) -> None:
    run = finish(key)
    (child,) = runs.children(run.info.run_id)
    MlflowClient().delete_run(child.info.run_id)
    assert f"run {child.info.run_id} of {run.info.run_id[:8]}… is gone" in refusal(key)


def test_a_run_is_taken_though_a_step_that_ran_below_it_is_deleted(key: StepKey) -> None:
    with runs.StepRun(key.step, "ana"):
        reuse.tag_key(key)
        run_id = mlflow.active_run().info.run_id
        with runs.child_run("preprocess", {}):
            mlflow.set_tag(tags.STEP, "preprocess")
            below = mlflow.active_run().info.run_id
        reuse.record_outputs()
    MlflowClient().delete_run(below)
    assert decide(key).run.info.run_id == run_id


def test_a_run_of_another_experiment_is_not_taken(key: StepKey, store: Store) -> None:
    finish(key)
    other = MlflowClient().create_experiment(f"beside {key.sha256}")
    assert reuse.find_reusable(key, other).run is None


# --- models and the registry


@pytest.fixture
def version(key: StepKey) -> str:
    """Register an empty model under the test's own name."""
    client, name = MlflowClient(), key.sha256
    client.create_registered_model(name)
    made = str(client.create_model_version(name, "nowhere").version)
    client.set_registered_model_alias(name, "champion", made)
    return made


def test_a_run_whose_model_lost_a_file_is_not_taken(key: StepKey, tmp_path: Path) -> None:
    code = tmp_path / "model.py"
    code.write_text(
        "import mlflow\nclass M(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input: list[str]): return model_input\n"
        "mlflow.models.set_model(M())\n"
    )
    with runs.StepRun(key.step, "ana"):
        reuse.tag_key(key)
        with runs.child_run("mean", {}):
            logged = mlflow.pyfunc.log_model(
                name="model", python_model=str(code), pip_requirements=["mlflow"]
            )
        location = MlflowClient().get_logged_model(logged.model_id).artifact_location
        folder = Path(location.removeprefix("file://"))
        # MLflow writes this file there while it loads a model by its registered name
        (folder / reuse.LOADED_NOTE).write_text("name: taxi")
        reuse.record_outputs()
    (folder / reuse.LOADED_NOTE).unlink()
    assert decide(key).run
    (folder / "MLmodel").unlink()
    assert f"models:/{logged.model_id}/MLmodel of " in refusal(key)


def test_a_registration_is_taken_while_it_stands(key: StepKey, version: str) -> None:
    finish(key, model_name=key.sha256, version=version)
    assert decide(key).run


def test_a_champion_that_was_never_promoted_counts_by_who_is_champion(
    key: StepKey, version: str
) -> None:
    challenger = str(MlflowClient().create_model_version(key.sha256, "nowhere").version)
    finish(key, model_name=key.sha256, version=challenger, champion_version=version)
    assert decide(key).run


def test_a_registration_is_not_taken_once_the_champion_is_another(
    key: StepKey, version: str
) -> None:
    finish(key, model_name=key.sha256, version=version)
    other = str(MlflowClient().create_model_version(key.sha256, "nowhere").version)
    MlflowClient().set_registered_model_alias(key.sha256, "champion", other)
    assert f"the champion is version {other} now, not {version}" in refusal(key)


def test_a_registration_is_not_taken_once_its_version_is_deleted(
    key: StepKey, version: str
) -> None:
    finish(key, model_name=key.sha256, version=version)
    MlflowClient().delete_model_version(key.sha256, version)
    assert f"version {version} of {key.sha256} is gone" in refusal(key)
