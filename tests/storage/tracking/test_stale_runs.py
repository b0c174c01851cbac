"""Which runs the next pipeline closes, and which it must not touch."""

import mlflow
import pytest
from mlflow import MlflowClient

from storage.tracking import processes, runs, stale_runs
from storage.tracking.tags import HOST, STARTED
from tests.stores import EXPERIMENT, Store

GONE = {STARTED: "1000000000"}  # nothing has run since then under this process' id


def leave(**tags: str) -> str:
    """Leave a run RUNNING, as a process does that is killed with SIGKILL."""
    experiment = MlflowClient().get_experiment_by_name(EXPERIMENT)
    return str(MlflowClient().create_run(experiment.experiment_id, tags=tags).info.run_id)


def status(run_id: str) -> str:
    return str(mlflow.get_run(run_id).info.status)


def test_a_run_of_a_dead_process_is_killed_and_says_why(store: Store) -> None:
    run_id = leave(**processes.process_tags() | GONE)
    assert run_id in stale_runs.close_stale_runs()
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
    assert run_id not in stale_runs.close_stale_runs()
    assert status(run_id) == "RUNNING"
    MlflowClient().set_terminated(run_id)


def test_runs_below_a_dead_one_go_with_it_unless_their_own_process_lives(store: Store) -> None:
    dead = leave(**processes.process_tags() | GONE)
    below = leave(**{"mlflow.parentRunId": dead})
    far_below = leave(**{"mlflow.parentRunId": below})
    alive = leave(**processes.process_tags() | {"mlflow.parentRunId": dead})
    assert {dead, below, far_below} <= set(stale_runs.close_stale_runs())
    assert status(alive) == "RUNNING"
    MlflowClient().set_terminated(alive)


def test_a_finished_run_of_a_dead_process_stays_finished(store: Store) -> None:
    run_id = leave(**processes.process_tags() | GONE)
    MlflowClient().set_terminated(run_id, "FINISHED")
    assert run_id not in stale_runs.close_stale_runs()
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
