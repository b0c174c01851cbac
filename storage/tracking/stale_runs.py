"""Stale runs, left RUNNING by a dead process on any machine: the next pipeline closes them."""

import time
from typing import NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from storage.tracking import processes, refusals, tags
from storage.tracking.closing import failure_tags
from storage.tracking.query import both, equals

MAX_RUNS = 1000  # a shared server may have more that run; the next pipeline sees those
REASON = "its process ended without closing it; the same command, run again, goes on from there"
START_TIMEOUT_S = 86_400.0  # for `mlflow run` to make an environment and start its step
IS_RUNNING = equals("attributes.status", "RUNNING")


class ClosedRuns(NamedTuple):
    """What became of the runs of dead processes."""

    run_ids: list[str]  # those closed
    refused: list[str]  # those that the store does not let this user close


def close_stale_runs(project: str = "") -> ClosedRuns:
    """Close as KILLED the runs that dead processes left RUNNING.

    A process of this machine is dead if it no longer exists; one of another machine, if its runs
    have had no heartbeat for long. A run that names no process is closed together with its parent.
    Runs of living processes stay open, and so does the active run.

    Args:
        project: the project URI given to `mlflow run`: its runs that no step has adopted within a
            day count as dead. Empty = this was not started by `mlflow run`.
    """
    client = MlflowClient()
    running = _search(client, IS_RUNNING)
    dead = _dead(running, project)
    if active := mlflow.active_run():
        dead.discard(active.info.run_id)
    # newest first: if this is cut short, the parent is still RUNNING for the next pipeline to find
    ids = [run.info.run_id for run in running if run.info.run_id in dead]
    # since it was listed, a run may have FINISHED and its process exited
    left = [run_id for run_id in ids if client.get_run(run_id).info.status == "RUNNING"]
    closed = [run_id for run_id in left if close_run(client, run_id, REASON)]
    return ClosedRuns(closed, [run_id for run_id in left if run_id not in closed])


def close_own_runs(reason: str) -> None:
    """Close as KILLED the runs that this process left RUNNING, such as one it was opening."""
    client = MlflowClient()
    conditions = [equals(f"tags.{key}", value) for key, value in processes.process_tags().items()]
    for run in _search(client, both(IS_RUNNING, *conditions)):
        close_run(client, run.info.run_id, reason)


def close_run(client: MlflowClient, run_id: str, reason: str, status: str = "KILLED") -> bool:
    """Close a run that its process left open; return False if the store refuses.

    The run may be somebody else's, or deleted by now: no reason to fail.

    Raises:
        MlflowException: the store does not answer.
    """
    try:
        tag_values = failure_tags(status, reason)
        client.log_batch(run_id, tags=[RunTag(*pair) for pair in tag_values.items()])
        client.set_terminated(run_id, status)
    except MlflowException as error:
        if refusals.is_unreachable(error):
            raise
        return False
    return True


def _search(client: MlflowClient, condition: str) -> list[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    order = ["attributes.start_time DESC"]
    return list(client.search_runs(experiments, condition, max_results=MAX_RUNS, order_by=order))


def _dead(running: list[Run], project: str) -> set[str]:
    """Return the ids of the runs of dead processes."""
    now = time.time()
    silent = {
        processes.process_of(run.data.tags)
        for run in running
        if processes.is_silent(run.data.tags, now)
    }
    dead = {
        run.info.run_id
        for run in running
        if processes.is_dead(run.data.tags)
        or processes.process_of(run.data.tags) in silent
        or _never_began(run, project, now)
    }
    while below := {run.info.run_id for run in running if _died_with_parent(run, dead)} - dead:
        dead |= below
    return dead


def _never_began(run: Run, project: str, now: float) -> bool:
    is_of_project = project != "" and run.data.tags.get(tags.PROJECT_URI) == project
    is_made = is_of_project and tags.ENTRY_POINT in run.data.tags and tags.PID not in run.data.tags
    return is_made and now - run.info.start_time / 1000 > START_TIMEOUT_S


def _died_with_parent(run: Run, dead: set[str]) -> bool:
    return tags.PID not in run.data.tags and run.data.tags.get(tags.PARENT) in dead
