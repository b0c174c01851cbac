"""Runs: how they open, what they hold, how they close."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run, RunData, RunInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import RunInfo as ProtoRunInfo

from storage import StorageError, StoreGoneError, UserError
from storage.checkout import ROOT, Checkout
from storage.tracking import artifacts, closing, processes, runs
from storage.tracking import store as store_module
from storage.tracking.tags import HEARTBEAT, STARTED
from storage.tracking.trials import TrialRuns
from tests.stores import EXPERIMENT, Store


@pytest.fixture
def clean_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.checkout.read", lambda: Checkout("c0ffee", "", ""))


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
        (KeyboardInterrupt(), "KILLED", "interrupted"),
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


def test_a_run_that_is_deleted_while_its_step_works_is_one_line(store: Store) -> None:
    line = r"Run [0-9a-f]{32}, or its experiment, was deleted before .*mlflow runs restore --run-id"
    with (
        pytest.raises(StorageError, match=line),
        store_module.loss_as_error(""),
        runs.StepRun("hpo", ""),
    ):
        MlflowClient().delete_run(mlflow.active_run().info.run_id)
        mlflow.log_metric("rmse", 1.0)
    assert mlflow.active_run() is None


def test_a_step_that_ends_after_its_pipeline_has_died_is_not_finished(store: Store) -> None:
    step = runs.StepRun("hpo", "Ada")
    with pytest.raises(KeyboardInterrupt), step:
        run_id = runs.active().info.run_id
        step.heartbeat.above = processes.process_tags() | {STARTED: "1000000000"}
    assert closed(run_id).info.status == "KILLED"


def silence() -> Exception:
    """Return the error that is raised if the server does not answer."""
    error = StoreGoneError("gone")
    error.__cause__ = MlflowException("no answer")
    error.__cause__.__context__ = requests.ConnectionError("refused")
    return error


# functions that a step calls while its run is being opened, before the body
OPENING = [
    "storage.checkout.read",
    "mlflow.set_tags",
    "storage.tracking.duplicates.close_duplicate_runs",
]


@pytest.mark.parametrize("call", OPENING)
@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (OSError("no git"), "FAILED", "OSError('no git')"),
        (KeyboardInterrupt(), "KILLED", "interrupted"),
    ],
    ids=["raises", "is interrupted"],
)
def test_a_step_that_comes_to_nothing_while_its_run_is_opened_has_not_finished(
    store: Store,
    call: str,
    error: BaseException,
    status: str,
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        made.append(mlflow.active_run().info.run_id)
        raise error

    made: list[str] = []
    monkeypatch.setattr(call, fail)
    with pytest.raises(type(error)), runs.StepRun("hpo", "Ada"):
        pytest.fail("it went on")
    run = closed(made[0])
    assert (run.info.status, run.data.tags["failure"]) == (status, failure)


def test_a_run_of_which_the_store_no_longer_hears_is_not_finished_when_python_ends(
    store: Store,
) -> None:
    with pytest.raises(StoreGoneError), runs.StepRun("hpo", ""):
        run_id = runs.active().info.run_id
        raise StoreGoneError("gone")  # but it answers again when Python ends
    run = closed(run_id)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "gone")


CUT = """
from storage.tracking import closing, runs

def cut(*_):
    closing.write_final = write
    raise KeyboardInterrupt

write, closing.write_final = closing.write_final, cut
with runs.StepRun("hpo", ""):
    {body}
"""


@pytest.mark.parametrize("body", ["pass", "raise ValueError", "raise KeyboardInterrupt"])
def test_a_run_that_is_interrupted_while_it_is_closed_is_not_finished_when_python_ends(
    store: Store, body: str
) -> None:
    done = subprocess.run([sys.executable, "-c", CUT.format(body=body)], cwd=ROOT, check=False)
    assert done.returncode != 0
    *_, run = store.runs().values()
    assert run["info"]["status"] == "KILLED"


def test_a_run_whose_failure_cannot_be_told_is_not_finished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("no more tags")

    with pytest.raises(ValueError, match="wrong"), runs.StepRun("hpo", ""):
        run_id = runs.active().info.run_id
        monkeypatch.setattr(MlflowClient, "log_batch", refuse)
        raise ValueError("wrong")
    assert closed(run_id).info.status == "FAILED"


@pytest.mark.parametrize("error", [None, ValueError("wrong")], ids=["ends well", "fails"])
def test_a_run_whose_end_is_refused_once_is_failed_and_what_came_first_is_raised(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    refused, set_terminated = MlflowException(LOGIN_PAGE), MlflowClient.set_terminated
    answers = [refused]

    def refuse_once(client: MlflowClient, run_id: str, status: str) -> None:
        if answers:
            raise answers.pop()
        set_terminated(client, run_id, status)

    with pytest.raises(Exception) as raised, runs.StepRun("hpo", ""):
        run_id = runs.active().info.run_id
        monkeypatch.setattr(MlflowClient, "set_terminated", refuse_once)
        if error:
            raise error
    assert raised.value is (error or refused)
    run = closed(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["failure"].startswith(
        "wrong" if error else "The server answers with a web"
    )


def test_what_a_step_has_made_without_being_told_is_closed_where_the_store_says_no(
    store: Store,
) -> None:
    with pytest.raises(MlflowException), runs.StepRun("hpo", ""):
        made = MlflowClient().create_run(
            runs.active_info().experiment_id, tags=processes.process_tags()
        )
        raise MlflowException(LOGIN_PAGE)
    run = closed(made.info.run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["failure"].startswith("The server answers with a web page")


LOGIN_PAGE = (
    "API request to endpoint was successful but the response body was not in a valid JSON format. "
    "Response body: '<html>Log in</html>'"
)


@pytest.mark.parametrize(("error", "n_retries"), [(OSError("full"), "2"), (silence(), "0")])
def test_closing_asks_for_seconds_and_leaves_the_settings_as_they_were(
    monkeypatch: pytest.MonkeyPatch, error: Exception, n_retries: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    before = dict(os.environ)
    with closing.limit_retries(None):
        assert dict(os.environ) == before
    with closing.limit_retries(error):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == n_retries
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"
        assert os.environ["MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER"] == "false"
    assert dict(os.environ) == before


def test_a_run_names_its_process_from_its_creation_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, str]] = []
    create = MlflowClient.create_run

    def record(*args: object, **kwargs: object) -> Run:
        run = create(*args, **kwargs)
        made.append(run.data.tags)
        return run

    monkeypatch.setattr(MlflowClient, "create_run", record)
    with runs.StepRun("hpo", ""):
        with runs.child_run("refit", {}):
            pass
        with TrialRuns("key", {}) as log:
            log.start(0)
    assert len(made) == 3
    for tags in made:
        assert processes.process_tags().items() <= tags.items()
    assert HEARTBEAT in made[0]


def test_a_run_made_by_mlflow_run_names_its_process_before_anything_else_happens(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store.uri)
    made = client.create_run(client.get_experiment_by_name(EXPERIMENT).experiment_id).info
    monkeypatch.setenv("MLFLOW_RUN_ID", made.run_id)
    seen: dict[str, str] = {}
    monkeypatch.setattr(
        "storage.checkout.read",
        lambda: seen.update(runs.active().data.tags) or Checkout("c0ffee", "", ""),
    )
    with runs.StepRun("hpo", ""):
        pass
    assert processes.process_tags().items() <= seen.items()
    assert HEARTBEAT in seen


def test_a_step_takes_the_run_that_mlflow_run_has_made(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store.uri)
    made = client.create_run(client.create_experiment("another")).info
    monkeypatch.setenv("MLFLOW_RUN_ID", made.run_id)
    with runs.StepRun("hpo", ""):
        assert runs.active().info.run_id == made.run_id
    assert closed(made.run_id).info.experiment_id == made.experiment_id


@pytest.mark.parametrize("opened", [lambda: runs.StepRun("hpo", ""), runs.plan_run])
@pytest.mark.parametrize("state", ["FINISHED", "FAILED", "KILLED", "deleted", "unknown"])
def test_a_run_that_has_ended_is_not_written_over(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    opened: Callable[[], AbstractContextManager[None]],
) -> None:
    client = MlflowClient(store.uri)
    made = client.create_run(client.get_experiment_by_name(EXPERIMENT).experiment_id).info
    if state == "deleted":
        client.delete_run(made.run_id)
    elif state != "unknown":
        client.set_terminated(made.run_id, state)
    run_id = "0" * 32 if state == "unknown" else made.run_id
    before = client.get_run(made.run_id).to_dictionary()
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    said = f"No run '{run_id}'" if state == "unknown" else f"which is {state}, and would be written"
    with pytest.raises(UserError, match=f"{said}.*MLFLOW_RUN_ID"), opened():
        pytest.fail("it was opened")
    assert client.get_run(made.run_id).to_dictionary() == before
    assert mlflow.active_run() is None


def test_a_run_says_which_code_made_it_without_credentials(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = Checkout("c0ffee", "https://host/taxi.git", "+n_trips = 2\n")
    monkeypatch.setattr("storage.checkout.read", lambda: code)
    with runs.StepRun("hpo", ""):
        run_id = runs.active().info.run_id
    tags = closed(run_id).data.tags
    assert tags["git_dirty"] == "true"
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert tags["mlflow.source.git.repoURL"] == "https://host/taxi.git"
    assert artifacts.read_text(run_id, "uncommitted.diff") == code.diff


@pytest.mark.usefixtures("clean_code")
def test_a_run_of_clean_code_has_no_diff(store: Store) -> None:
    with runs.StepRun("hpo", ""):
        run_id = runs.active().info.run_id
    assert closed(run_id).data.tags["git_dirty"] == "false"
    with pytest.raises(StorageError, match=f"{run_id} has no artifact uncommitted.diff"):
        artifacts.read_bytes(run_id, "uncommitted.diff")


def test_code_that_git_does_not_answer_for_is_not_clean_and_a_line_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow still finds a commit, if the folder is inside another repository."""
    monkeypatch.setattr("storage.checkout.read", lambda: Checkout("", "", "", "not in 'HEAD'"))
    commit, client = {"mlflow.source.git.commit": "c0ffee"}, MlflowClient(store.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    adopted = str(client.create_run(experiment, tags=commit).info.run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", adopted)
    with runs.StepRun("hpo", ""):
        pass
    tags = closed(adopted).data.tags
    assert (tags["git_dirty"], tags["mlflow.source.git.commit"]) == ("unknown", "")
    said = capsys.readouterr().out
    assert "hpo: git cannot tell the state of this code (not in 'HEAD')" in said
    assert "git_dirty=unknown" in said


def test_a_child_run_inherits_who_and_which_code_and_lies_below(store: Store) -> None:
    with runs.StepRun("hpo", "Ada"):
        parent = runs.active().info.run_id
        with runs.child_run("refit", {"model": "xgboost"}):
            pass
        with runs.child_run("again", {}):
            pass
    first, second = runs.children(parent)
    assert (first.info.run_name, second.info.run_name) == ("refit", "again")
    assert first.data.tags["model"] == "xgboost"
    assert first.data.tags["developer"] == "Ada"
    assert first.data.tags["git_dirty"] == closed(parent).data.tags["git_dirty"]
    assert "step" not in first.data.tags


def test_a_run_below_that_was_cut_off_is_closed_and_the_step_with_it(store: Store) -> None:
    with pytest.raises(ValueError, match="wrong"), runs.StepRun("hpo", ""):
        parent = runs.active().info.run_id
        below = mlflow.start_run(nested=True).info.run_id
        raise ValueError("wrong")
    assert {closed(run_id).info.status for run_id in (parent, below)} == {"FAILED"}


def test_a_step_that_cannot_open_its_run_closes_no_other(store: Store) -> None:
    with mlflow.start_run() as other:
        with pytest.raises(Exception, match="already active"), runs.StepRun("hpo", ""):
            pytest.fail("it went on")
        assert mlflow.active_run().info.run_id == other.info.run_id
        assert mlflow.get_run(other.info.run_id).info.status == "RUNNING"


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "KILLED"), (ValueError("wrong"), "FAILED")]
)
def test_a_child_run_closes_as_its_body_ended(
    store: Store, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)), runs.StepRun("register", ""):
        parent = runs.active().info.run_id
        with runs.child_run("refit", {}):
            raise error
    (child,) = runs.children(parent)
    assert child.info.status == status
    assert child.data.tags["failure"] == mlflow.get_run(parent).data.tags["failure"]


def test_a_run_that_an_interruption_cut_off_in_the_making_is_closed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_run

    def create_and_stop(*args: object, **kwargs: object) -> None:
        create(*args, **kwargs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), runs.StepRun("hpo", ""):
        parent = runs.active().info.run_id
        with TrialRuns("key", {}) as log:
            monkeypatch.setattr(MlflowClient, "create_run", create_and_stop)
            log.start(0)
    (trial,) = runs.children(parent)
    assert trial.info.status == "KILLED"


def test_a_user_without_a_name_is_known_by_its_number(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("storage.checkout.user_name", lambda: "")
    monkeypatch.setattr("getpass.getuser", unknown)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    with runs.StepRun("hpo", ""):
        run_id = runs.active().info.run_id
    assert closed(run_id).data.tags["developer"] == "4711"


def test_an_answer_that_is_another_run_or_none_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow.start_run() as one, mlflow.start_run(nested=True) as other:
        pass
    empty = RunInfo.from_proto(ProtoRunInfo())
    for sent in (other, Run(empty, RunData())):
        monkeypatch.setattr(mlflow, "get_run", lambda run_id, sent=sent: sent)
        with pytest.raises(StorageError, match=f"what is not run {one.info.run_id}"):
            runs.fetch_run(one.info.run_id)
