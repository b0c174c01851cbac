"""How a step that launches another learns how it ended."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import ExecutionException

from storage import UserError, environment
from storage.tracking import fork_server, interrupted, launching, processes, runs, sqlite_file
from storage.tracking.tags import ENTRY_POINT, FAILURE, PARENT
from tests.stores import Store


def fail_with(*made: tuple[str, str]) -> Callable[..., None]:
    """Make a stand-in for mlflow.projects.run that makes failed runs of these (step, reason)s."""

    def run(*_: object, **__: object) -> None:
        client, parent = MlflowClient(), mlflow.active_run().info
        for step, reason in made:
            tags = {PARENT: parent.run_id, ENTRY_POINT: step}
            client.create_run(
                parent.experiment_id, tags=tags | {FAILURE: reason} if reason else tags
            )
        raise ExecutionException("Entry point\nbroken. ")

    return run


def launch_error(monkeypatch: pytest.MonkeyPatch, *made: tuple[str, str]) -> str:
    monkeypatch.setattr("mlflow.projects.run", fail_with(*made))
    with pytest.raises(UserError) as failure:
        launching.launch("hpo", {"seed": "42"})
    return str(failure.value)


def test_a_step_is_launched_from_a_checkout_whatever_its_folder_is_called(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow takes what follows a # for a folder within the project."""
    monkeypatch.setattr(sqlite_file, "version_info", (3, 13))  # 3.14 refuses such a store
    launched: list[str] = []

    def launch(uri: str, **_: object) -> SimpleNamespace:
        launched.append(uri)
        return SimpleNamespace(run_id="1a2b")

    monkeypatch.setattr("storage.checkout.ROOT", tmp_path / "trips #1")
    (tmp_path / "trips #1").mkdir()
    monkeypatch.chdir(tmp_path / "trips #1")
    monkeypatch.setattr("mlflow.projects.run", launch)
    with runs.StepRun("main", ""):
        assert launching.launch("hpo", {}) == "1a2b"
    assert launched == ["."]


def test_a_step_that_fails_says_its_own_reason(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with runs.StepRun("main", ""):
        assert launch_error(monkeypatch, ("hpo", "No trips.")) == "hpo failed: No trips."


def test_a_step_that_is_killed_has_its_reason_said_for_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = "The step was ended by signal 9, Killed, usually for lack of memory."
    monkeypatch.setattr(fork_server, "ended_by", lambda: killed)
    with runs.StepRun("main", ""):
        parent = runs.active().info.run_id
        assert launch_error(monkeypatch, ("hpo", "")) == f"hpo failed: {killed}"
    (run,) = runs.children(parent)
    assert (run.info.status, run.data.tags[FAILURE]) == ("FAILED", killed)


@pytest.mark.parametrize("earlier", [[], ["baseline", "hpo"]])
def test_a_step_that_fails_before_it_has_a_run_blames_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, earlier: list[str]
) -> None:
    with runs.StepRun("main", ""):
        parent = runs.active().info
        for step in earlier:
            tags = {PARENT: parent.run_id, ENTRY_POINT: step, FAILURE: "of an earlier launch"}
            MlflowClient().create_run(
                parent.experiment_id, tags=tags, start_time=parent.start_time - 60_000
            )
        line = launch_error(monkeypatch, ("baseline", "of another step"))
        assert line.startswith("hpo failed before it had a run: Entry point broken. See")


# --- interruptions


def stop_with(
    status: str, tags: dict[str, str], error: BaseException, made: list[str]
) -> Callable[..., None]:
    """Make a stand-in for mlflow.projects.run: a step begins, and is stopped with its runner."""

    def run(*_: object, **__: object) -> None:
        client, parent = MlflowClient(), mlflow.active_run().info
        marks = {PARENT: parent.run_id, ENTRY_POINT: "hpo", **tags}
        run_id = client.create_run(parent.experiment_id, tags=marks).info.run_id
        client.set_terminated(run_id, status) if status != "RUNNING" else None
        made.append(run_id)
        raise error

    return run


CLOSED_ITSELF = {FAILURE: interrupted.REASON, **processes.process_tags()}
REFUSED = {FAILURE: "No trips.", **processes.process_tags()}


@pytest.mark.parametrize(
    ("status", "tags", "becomes"),
    [
        ("FAILED", CLOSED_ITSELF, "KILLED"),  # KILLED by itself, then FAILED by MLflow's runner
        ("FAILED", {}, "KILLED"),  # stopped while Python was starting
        ("RUNNING", {}, "KILLED"),  # stopped before there was a process
        ("FAILED", processes.process_tags(), "KILLED"),  # stopped at its very end
        ("FAILED", REFUSED, "FAILED"),
        ("FINISHED", processes.process_tags(), "FINISHED"),
        ("RUNNING", processes.process_tags(), "RUNNING"),  # will notice that nobody waits for it
    ],
)
def test_a_step_that_is_interrupted_with_its_pipeline_is_killed(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    tags: dict[str, str],
    becomes: str,
) -> None:
    made: list[str] = []
    with runs.StepRun("main", ""):
        monkeypatch.setattr(
            "mlflow.projects.run", stop_with(status, tags, KeyboardInterrupt(), made)
        )
        with pytest.raises(KeyboardInterrupt):
            launching.launch("hpo", {})
    assert mlflow.get_run(made[0]).info.status == becomes
    MlflowClient().set_terminated(made[0])


def test_a_step_that_is_interrupted_alone_is_killed_and_its_pipeline_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    with runs.StepRun("main", ""):
        stopped = stop_with("FAILED", CLOSED_ITSELF, ExecutionException("Run failed"), made)
        monkeypatch.setattr("mlflow.projects.run", stopped)
        with pytest.raises(UserError, match="hpo failed: interrupted"):
            launching.launch("hpo", {})
    assert mlflow.get_run(made[0]).info.status == "KILLED"


def test_what_mlflow_run_calls_failed_after_an_interruption_becomes_killed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store.uri)
    with pytest.raises(KeyboardInterrupt), runs.StepRun("main", ""):
        run_id = runs.active().info.run_id
        raise KeyboardInterrupt
    asked: list[float] = []

    def call_it_failed(seconds: float) -> None:
        asked.append(seconds)
        client.set_terminated(run_id, "FAILED")  # `mlflow run` does this last

    monkeypatch.setattr("time.sleep", call_it_failed)
    monkeypatch.setattr("sys.argv", ["interrupted", run_id])
    interrupted.main()
    assert len(asked) == 1
    assert client.get_run(run_id).info.status == "KILLED"


def test_what_no_step_had_taken_when_it_was_interrupted_becomes_killed_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("tests").experiment_id
    run_id = client.create_run(experiment).info.run_id
    client.set_terminated(run_id, "FAILED")
    monkeypatch.setattr("sys.argv", ["interrupted", run_id])
    interrupted.main()
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "interrupted")


@pytest.mark.parametrize(
    ("is_made", "tags", "is_left"),
    [(False, {}, False), (True, {}, True), (True, {PARENT: "of main"}, False)],
    ids=["by itself", "by mlflow run", "by main"],
)
def test_only_where_mlflow_run_waits_for_a_step_somebody_is_left_to_speak_after_it(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    is_made: bool,
    tags: dict[str, str],
    is_left: bool,
) -> None:
    client, left, run_id = MlflowClient(store.uri), [], ""
    monkeypatch.setattr(environment, "restore_later", left.append)
    monkeypatch.setattr(runs, "_tags_of", lambda _: {})
    if is_made:
        experiment = client.get_experiment_by_name("tests").experiment_id
        run_id = client.create_run(experiment, tags=tags).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(KeyboardInterrupt), runs.StepRun("main", ""):
        raise KeyboardInterrupt
    assert left == ([run_id] if is_left else [])


class Submitted:
    """A run that MLflow has started, and that ends when its status is asked for a third time."""

    def __init__(self, name: str, *, fails: bool) -> None:
        client, parent = MlflowClient(), mlflow.active_run().info
        made = {PARENT: parent.run_id, ENTRY_POINT: "main"}
        if fails:
            made[FAILURE] = "no trips."
        run = client.create_run(parent.experiment_id, tags=made, run_name=name)
        self.run_id, self.fails, self.n_looks, self.cancelled = run.info.run_id, fails, 0, False

    def get_status(self) -> str:
        """Return the status."""
        self.n_looks += 1
        return "RUNNING" if self.n_looks < 3 else "FAILED" if self.fails else "FINISHED"

    def wait(self) -> bool:
        """Return whether it succeeded."""
        return not self.fails

    def cancel(self) -> None:
        """Cancel it."""
        self.cancelled = True


@pytest.fixture
def submitted(store: Store, monkeypatch: pytest.MonkeyPatch) -> dict[str, Submitted]:
    """Replace MLflow's runner by a stand-in: name -> its run; runs named "bad" fail."""
    begun: dict[str, Submitted] = {}

    def submit(*_: object, run_name: str, synchronous: bool, **__: object) -> Submitted:
        assert not synchronous
        begun[run_name] = Submitted(run_name, fails="bad" in run_name)
        return begun[run_name]

    monkeypatch.setattr("mlflow.projects.run", submit)
    monkeypatch.setattr(launching, "POLL_S", 0)
    return begun


def launch_all(*names: str) -> dict[str, str]:
    with runs.StepRun("backtest", ""):
        return launching.launch_all("main", {name: {} for name in names}, at_once=2)


def test_so_many_runs_go_on_at_once_and_each_is_told_by_its_name(
    submitted: dict[str, Submitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_running: list[int] = []
    look = launching.has_ended

    def count(one: Submitted) -> bool:
        n_running.append(sum(other.n_looks < 3 for other in submitted.values()))
        return look(one)

    monkeypatch.setattr(launching, "has_ended", count)
    found = launch_all("a", "b", "c")
    assert found == {name: one.run_id for name, one in submitted.items()}
    assert list(found) == ["a", "b", "c"]
    assert max(n_running) == 2


def test_the_experiment_is_named_once_for_mlflow_run_refuses_it_twice(
    submitted: dict[str, Submitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, seen = mlflow.projects.run, []

    def look(*args: Any, **options: Any) -> Submitted:
        seen.append((options["experiment_id"] != "", os.environ.get("MLFLOW_EXPERIMENT_NAME")))
        return submit(*args, **options)

    monkeypatch.setattr("mlflow.projects.run", look)
    before = os.environ["MLFLOW_EXPERIMENT_NAME"]
    launch_all("a")
    assert seen == [(True, None)]
    assert os.environ["MLFLOW_EXPERIMENT_NAME"] == before


def test_a_run_that_fails_lets_those_beside_it_end_and_none_begin(
    submitted: dict[str, Submitted],
) -> None:
    with pytest.raises(UserError, match=r"^bad: main failed: no trips\.$"):
        launch_all("bad", "beside", "never begun")
    assert list(submitted) == ["bad", "beside"]
    assert submitted["beside"].n_looks == 3


def test_an_interruption_ends_every_run_that_goes_on(
    submitted: dict[str, Submitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("storage.tracking.launching.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch_all("a", "b", "c")
    assert [one.cancelled for one in submitted.values()] == [True, True]
    closed = [MlflowClient().get_run(one.run_id).info.status for one in submitted.values()]
    assert closed == ["KILLED", "KILLED"]
