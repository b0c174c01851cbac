"""Which runs the next pipeline closes, and which it must not touch."""

import time
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from storage.tracking import processes, runs, stale_runs
from storage.tracking.tags import ENTRY_POINT, HEARTBEAT, HOST, PARENT, PROJECT_URI, STARTED
from tests.stores import EXPERIMENT, Store

GONE = {STARTED: "1000000000"}  # nothing has run since then under this process' id


def leave(**tags: str) -> str:
    """Leave a run RUNNING, like a process that was killed with SIGKILL."""
    experiment = MlflowClient().get_experiment_by_name(EXPERIMENT)
    return str(MlflowClient().create_run(experiment.experiment_id, tags=tags).info.run_id)


def status(run_id: str) -> str:
    return str(mlflow.get_run(run_id).info.status)


def test_a_run_of_a_dead_process_is_killed_and_says_why(store: Store) -> None:
    run_id = leave(**processes.process_tags() | GONE)
    assert run_id in stale_runs.close_stale_runs().run_ids
    run = mlflow.get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.info.end_time
    assert run.data.tags["failure"] == stale_runs.REASON


@pytest.mark.parametrize(
    "tags",
    [
        processes.process_tags(),
        processes.process_tags() | GONE | {HOST: "elsewhere"},
        {"developer": "somebody who starts runs by hand"},
    ],
    ids=["alive", "on another machine", "of no process"],
)
def test_a_run_that_may_still_be_somebodys_stays_running(
    store: Store, tags: dict[str, str]
) -> None:
    run_id = leave(**tags)
    assert run_id not in stale_runs.close_stale_runs().run_ids
    assert status(run_id) == "RUNNING"
    MlflowClient().set_terminated(run_id)


def test_runs_below_a_dead_one_go_with_it_unless_their_own_process_lives(store: Store) -> None:
    dead = leave(**processes.process_tags() | GONE)
    below = leave(**{"mlflow.parentRunId": dead})
    far_below = leave(**{"mlflow.parentRunId": below})
    alive = leave(**processes.process_tags() | {"mlflow.parentRunId": dead})
    assert {dead, below, far_below} <= set(stale_runs.close_stale_runs().run_ids)
    assert status(alive) == "RUNNING"
    MlflowClient().set_terminated(alive)


def test_a_finished_run_of_a_dead_process_stays_finished(store: Store) -> None:
    run_id = leave(**processes.process_tags() | GONE)
    MlflowClient().set_terminated(run_id, "FINISHED")
    assert run_id not in stale_runs.close_stale_runs().run_ids
    assert status(run_id) == "FINISHED"


def test_a_pipeline_closes_them_when_it_starts_and_a_step_below_it_does_not(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = leave(**processes.process_tags() | GONE)
    with runs.StepRun("main", ""):
        assert status(run_id) == "KILLED"
        parent = mlflow.active_run().info.run_id
    assert "main: closed 1 run that a dead process had left RUNNING" in capsys.readouterr().out
    run_id = leave(**processes.process_tags() | GONE)
    monkeypatch.setenv("MLFLOW_RUN_ID", leave(**{"mlflow.parentRunId": parent}))
    with runs.StepRun("hpo", ""):
        assert status(run_id) == "RUNNING"
    stale_runs.close_stale_runs()


# --- on another host

ELSEWHERE = processes.process_tags() | {HOST: "elsewhere"}
SILENT = f"{time.time() - 1.1 * processes.SILENCE_S:.0f}"


def test_a_process_elsewhere_that_shows_no_sign_of_life_is_dead_with_all_its_runs(
    store: Store,
) -> None:
    step = leave(**ELSEWHERE, **{HEARTBEAT: SILENT})
    trial = leave(**ELSEWHERE, **{PARENT: step})
    below = leave(**{PARENT: step})
    another = leave(**ELSEWHERE | {STARTED: "1"})
    assert {step, trial, below} <= set(stale_runs.close_stale_runs().run_ids)
    assert {status(run_id) for run_id in (step, trial, below)} == {"KILLED"}
    assert status(another) == "RUNNING"
    MlflowClient().set_terminated(another)


@pytest.mark.parametrize(
    "tags",
    [
        # a heartbeat in the future stays fresh, however long earlier tests take
        ELSEWHERE | {HEARTBEAT: f"{time.time() + 86_400:.0f}"},
        processes.process_tags() | {HEARTBEAT: SILENT},
        {HEARTBEAT: SILENT},
    ],
    ids=["a sign of life", "its process is here and lives", "it names no process"],
)
def test_a_silence_that_proves_nothing_closes_nothing(store: Store, tags: dict[str, str]) -> None:
    run_id, other = leave(**tags), leave(developer="starts runs by hand")
    assert not {run_id, other} & set(stale_runs.close_stale_runs().run_ids)
    for one in (run_id, other):
        assert status(one) == "RUNNING"
        MlflowClient().set_terminated(one)


# --- of no process

OF_PROJECT = {PROJECT_URI: "git@host:taxi.git", ENTRY_POINT: "main"}
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("tags", "age_ms", "becomes"),
    [
        (OF_PROJECT, 1.1 * DAY_MS, "KILLED"),
        (OF_PROJECT, 0.9 * DAY_MS, "RUNNING"),
        (OF_PROJECT | {PROJECT_URI: "git@host:other.git"}, 1.1 * DAY_MS, "RUNNING"),
        (OF_PROJECT | ELSEWHERE, 1.1 * DAY_MS, "RUNNING"),
        ({PROJECT_URI: "git@host:taxi.git"}, 1.1 * DAY_MS, "RUNNING"),
    ],
    ids=["dead", "its environment is being made", "of another project", "begun", "by hand"],
)
def test_a_run_that_mlflow_run_made_and_no_step_took_for_a_day_is_dead(
    store: Store, tags: dict[str, str], age_ms: float, becomes: str
) -> None:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    began = int(time.time() * 1000 - age_ms)
    run_id = client.create_run(experiment, start_time=began, tags=tags).info.run_id
    stale_runs.close_stale_runs("git@host:taxi.git")
    assert status(run_id) == becomes
    client.set_terminated(run_id)


# --- what this user may not touch


def test_a_run_that_this_user_may_not_close_stops_nobody_and_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, others = (
        leave(**processes.process_tags() | GONE),
        leave(**processes.process_tags() | GONE),
    )
    log_batch = MlflowClient.log_batch

    def refuse(client: MlflowClient, run_id: str, **rest: Any) -> None:
        if run_id == others:  # like a server with basic auth
            raise MlflowException(
                "API request failed with error code 403", error_code=PERMISSION_DENIED
            )
        log_batch(client, run_id, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    with runs.StepRun("hpo", ""):
        pass
    assert (status(mine), status(others)) == ("KILLED", "RUNNING")
    line = "left 1 run of dead processes RUNNING, which this user may not close"
    assert f"hpo: {line}: {others}" in capsys.readouterr().out
    monkeypatch.undo()
    MlflowClient(store.uri).set_terminated(others)


def test_a_store_that_has_gone_is_not_taken_for_a_refusal(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException):
        stale_runs.close_run(MlflowClient("http://127.0.0.1:1"), "a run", "dead")


def test_a_run_that_ends_well_while_it_is_looked_at_stays_finished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = leave(**processes.process_tags())

    def end(tags: dict[str, str]) -> bool:
        """Act as its process, which ends between the listing of runs and the check of processes."""
        MlflowClient().set_terminated(run_id, "FINISHED")
        return True

    monkeypatch.setattr(processes, "is_dead", end)
    assert run_id not in stale_runs.close_stale_runs().run_ids
    assert status(run_id) == "FINISHED"
    assert "failure" not in mlflow.get_run(run_id).data.tags
