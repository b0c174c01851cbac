"""What the MLflow UI shows: the pages of runs and of the experiment, and their addresses."""

import json
import socket

import mlflow
import pytest
from mlflow import MlflowClient

from storage import UserError
from storage.tracking import closing, experiments, pages, runs, tags
from tests.stores import Store


def test_a_link_opens_the_page_for_machine_learning_where_the_store_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = pages.run_link("1", "2a")
    assert link == "#/experiments/1/runs/2a?workflowType=machine_learning"
    file = pages.artifact_link("1", "2a", "report.html")
    assert file == "#/experiments/1/runs/2a/artifacts/report.html?workflowType=machine_learning"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "sqlite:////tmp/mlflow.db")
    assert pages.address(link, 5001) == f"http://127.0.0.1:5001/{link}"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "https://ana:secret@mlflow/")
    assert pages.address(link) == f"https://mlflow/{link}"


def test_make_ui_names_the_runs_of_the_experiment_with_their_columns(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("shown"))
    experiment_id = experiments.use_experiment()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        monkeypatch.setattr("sys.argv", ["pages", port])
        with pytest.raises(SystemExit) as left:
            pages.main()
    assert left.value.code == 2  # and MLflow's UI does not start
    assert capsys.readouterr().err.startswith(f"ui: Port {port}: ")
    pages.main()
    said = capsys.readouterr().out
    assert f"http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs?workflowType=" in said
    shown = mlflow.get_experiment(experiment_id).tags
    name = said.strip().rpartition("viewStateShareKey=")[2]
    assert "metrics.`test_rmse`" in json.loads(shown[tags.VIEW.of(name)])["selectedColumns"]
    assert "what won" in shown[tags.NOTE]
    # a page that somebody has written is not overwritten
    MlflowClient().set_experiment_tag(experiment_id, tags.NOTE, "Ours")
    experiments.use_experiment()
    assert mlflow.get_experiment(experiment_id).tags[tags.NOTE] == "Ours"


def page_of(step: str, about: str, *, name: str = "", parent: str = "") -> tuple[str, str]:
    """Write the page of a step's run; return the run's name and its page."""
    with runs.StepRun(step, "Ada"):
        run_id = runs.active().info.run_id
        if name:
            mlflow.set_tag(tags.RUN_NAME, name)
        if parent:
            mlflow.set_tag(tags.PARENT, parent)
        runs.write_page("**It won**", about)
    run = mlflow.get_run(run_id)
    return run.info.run_name, run.data.tags[tags.NOTE]


def test_a_run_is_named_by_what_it_is_about_and_who_started_it(store: Store) -> None:
    about = "green 2021-01 > 02 · 5.39 min"
    assert page_of("main", about) == (f"{about} · Ada", "**It won**")
    assert page_of("hpo", about)[0] == f"hpo · {about} · Ada"
    assert page_of("hpo", "")[0] == "hpo"
    assert page_of("main", about, name="mine")[0] == "mine"
    assert page_of("hpo", about, parent="1a")[0] == "hpo"


def test_a_command_that_would_make_the_page_wider_than_it_is_is_broken_by_it() -> None:
    long = "mlflow run . " + "-P name=value " * 9 + "-P seed=42"
    page = f"It won.\n\n    short\n\n    {long}\n\n    {long} '`'"
    assert closing.fit_page(page) == (f"It won.\n\n    short\n\n`{long}`\n\n``{long} '`'``")
    fenced = f"It differs:\n\n```\n    {long}\n```\n\n"
    assert closing.fit_page(f"{fenced}    {long}\n") == f"{fenced}`{long}`\n"


def test_a_failed_run_tells_its_reason_and_the_next_command(store: Store) -> None:
    with pytest.raises(UserError), runs.StepRun("hpo", "", lambda: "mlflow run . -e hpo"):
        run_id = runs.active().info.run_id
        raise UserError("No trips in s3://ana:secret@tlc. Check the month.")
    first, *rest = mlflow.get_run(run_id).data.tags[tags.NOTE].splitlines()
    assert first.startswith("**FAILED**: No trips in s3://")
    assert "secret" not in first
    assert rest[-1] == "    mlflow run . -e hpo"
    again = f"mlflow run . {'-P name=value ' * 9}-P seed=42"
    told = closing.failure_tags("FAILED", "no trips", again)[tags.NOTE]
    assert told.splitlines()[-1] == f"`{again}`"
    reason = "Pass source=<folder>, or run `mlflow gc --run-ids <id>`."
    shown = r"**FAILED**: Pass source=\<folder>, or run `mlflow gc --run-ids <id>`."
    assert closing.failure_tags("FAILED", reason) == {tags.FAILURE: reason, tags.NOTE: shown}
    assert closing.failure_tags("KILLED", "interrupted")[tags.NOTE] == "**KILLED**: interrupted"
    killed = closing.failure_tags("KILLED", "interrupted", "mlflow run .")[tags.NOTE]
    assert killed.splitlines() == [
        "**KILLED**: interrupted",
        "",
        "Go on with:",
        "",
        "    mlflow run .",
    ]
