"""Runs: how they open, what they hold, how they close."""

import hashlib
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from storage import StorageError
from storage.repro.checkout import Checkout
from storage.tracking import runs
from tests.stores import Store


@pytest.fixture
def clean_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.repro.checkout.read", lambda: Checkout("c0ffee", "", ""))


def closed(run_id: str) -> Run:
    assert mlflow.active_run() is None
    return mlflow.get_run(run_id)


# --- the run of a step


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (None, "FINISHED", None),
        (StorageError("No trips there. Check."), "FAILED", "No trips there. Check."),
        (ValueError("Unknown taxi."), "FAILED", "Unknown taxi."),
        (KeyError("zone"), "FAILED", "KeyError('zone')"),
        (KeyboardInterrupt(), "KILLED", None),
    ],
    ids=repr,
)
def test_a_run_closes_as_its_step_ended(
    store: Store, error: BaseException | None, status: str, failure: str | None
) -> None:
    try:
        with runs.StepRun("hpo", "Ada"):
            run_id = runs.active().info.run_id
            if error:
                raise error
    except type(error) as caught:
        assert caught is error
    run = closed(run_id)
    assert run.info.status == status
    assert run.data.tags.get("failure") == failure
    assert (run.data.tags["step"], run.data.tags["developer"]) == ("hpo", "Ada")


def test_a_step_takes_the_run_that_mlflow_run_has_made(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store.uri)
    made = client.create_run(client.create_experiment("another")).info
    monkeypatch.setenv("MLFLOW_RUN_ID", made.run_id)
    with runs.StepRun("hpo", ""):
        assert runs.active().info.run_id == made.run_id
    assert closed(made.run_id).info.experiment_id == made.experiment_id


def test_a_run_says_which_code_made_it_without_credentials(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = Checkout("c0ffee", "https://host/taxi.git", "+n_trips = 2\n")
    monkeypatch.setattr("storage.repro.checkout.read", lambda: code)
    with runs.StepRun("hpo", ""):
        run_id = runs.active().info.run_id
    tags = closed(run_id).data.tags
    assert tags["git_dirty"] == "true"
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert tags["mlflow.source.git.repoURL"] == "https://host/taxi.git"
    assert runs.fetch(run_id, "uncommitted.diff").read_text() == code.diff


@pytest.mark.usefixtures("clean_code")
def test_a_run_of_clean_code_has_no_diff(store: Store) -> None:
    with runs.StepRun("hpo", ""):
        run_id = runs.active().info.run_id
    assert closed(run_id).data.tags["git_dirty"] == "false"
    with pytest.raises(StorageError, match=f"{run_id} has no artifact uncommitted.diff"):
        runs.fetch(run_id, "uncommitted.diff")


def test_a_child_run_inherits_who_and_which_code_and_lies_below(store: Store) -> None:
    with runs.StepRun("hpo", "Ada"):
        parent = runs.active().info.run_id
        with runs.child_run("refit", model="xgboost"):
            pass
        with runs.child_run("again"):
            pass
    first, second = runs.children(parent)
    assert (first.info.run_name, second.info.run_name) == ("refit", "again")
    assert first.data.tags["model"] == "xgboost"
    assert first.data.tags["developer"] == "Ada"
    assert first.data.tags["git_dirty"] == closed(parent).data.tags["git_dirty"]
    assert "step" not in first.data.tags


# --- artifacts


def test_an_artifact_on_this_machine_is_read_where_it_lies(store: Store) -> None:
    with runs.StepRun("preprocess", ""):
        run_id = runs.active().info.run_id
        mlflow.log_text("1,2", "data/a b.csv")
    path = runs.fetch(run_id, "data/a b.csv")
    assert path.is_relative_to(store.folder)
    assert path.read_text() == "1,2"


def test_a_table_is_csv_with_a_header(store: Store) -> None:
    with runs.StepRun("baseline", ""):
        run_id = runs.active().info.run_id
        runs.log_table([{"model": "mean, all", "rmse": 9.5}, {"model": "é", "rmse": 1}], "t.csv")
    assert runs.fetch(run_id, "t.csv").read_bytes() == 'model,rmse\n"mean, all",9.5\né,1\n'.encode()


def test_data_sets_carry_the_hash_of_the_bytes(store: Store, tmp_path: Path) -> None:
    (tmp_path / "month").write_bytes(b"trips")
    sha256 = runs.sha256_of(tmp_path / "month")
    assert sha256 == hashlib.sha256(b"trips").hexdigest()
    with runs.StepRun("preprocess", ""):
        run_id = runs.active().info.run_id
        runs.log_dataset(name="train", uri="tlc/month", sha256=sha256, context="training")
    (given,) = mlflow.get_run(run_id).inputs.dataset_inputs
    assert given.dataset.name == "train"
    assert given.dataset.digest == sha256[: len(given.dataset.digest)]
    assert len(given.dataset.digest) == runs.DIGEST_CHARS
    assert sha256 in given.dataset.source
    assert {tag.value for tag in given.tags} == {"training"}
