"""Runs that a dying process left RUNNING, closed by the next pipeline, wherever they were."""

import time
from typing import NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from storage.tracking import processes, refusals, tags
from storage.tracking.closing import failure_tags
from storage.tracking.query import both, equals

N_MOST = 1000  # a shared server may have more that run; the next time sees them
REASON = "its process ended without closing it; the same command, run again, goes on from there"
BEGINS_S = 86_400.0  # within which `mlflow run` has made an environment, and its step begun
IS_RUNNING = equals("attributes.status", "RUNNING")


class Closed(NamedTuple):
    """What became of the runs of dead processes."""

    run_ids: list[str]  # closed
    refused: list[str]  # which the store does not let this user close


def close_stale_runs(project: str = "") -> Closed:
    """Close as KILLED what dead processes left RUNNING.

    A process of this machine is looked for; one of another is dead once its runs have shown no sign
    of life for long. A run that names no process goes with the run above it. What belongs to a
    living process stays as it is, and so does the active run.

    Args:
        project: what `mlflow run` was told to run: those of its runs are dead that no step has
            taken within a day. Empty = it was not.
    """
    client = MlflowClient()
    running = _search(client, IS_RUNNING)
    dead = _dead(running, project)
    if active := mlflow.active_run():
        dead.discard(active.info.run_id)
    # newest first: where this is cut short, the run above is still there to be found next time
    ids = [run.info.run_id for run in running if run.info.run_id in dead]
    # one may have ended well after it was listed, and its process then
    left = [run_id for run_id in ids if client.get_run(run_id).info.status == "RUNNING"]
    closed = [run_id for run_id in left if close_run(client, run_id, REASON)]
    return Closed(closed, [run_id for run_id in left if run_id not in closed])


def close_own(reason: str) -> None:
    """Close as KILLED what this process has left RUNNING: runs that it was opening, say."""
    client = MlflowClient()
    marks = [equals(f"tags.{key}", value) for key, value in processes.process_tags().items()]
    for run in _search(client, both(IS_RUNNING, *marks)):
        close_run(client, run.info.run_id, reason)


def close_run(client: MlflowClient, run_id: str, reason: str, status: str = "KILLED") -> bool:
    """Close a run that its process left open; False where the store does not let this user do it.

    It may be somebody else's, or deleted by now: nobody has to stop for that.
    """
    try:
        marks = failure_tags(status, reason)
        client.log_batch(run_id, tags=[RunTag(*mark) for mark in marks.items()])
        client.set_terminated(run_id, status)
    except MlflowException as error:
        if refusals.is_gone(error):
            raise
        return False
    return True


def _search(client: MlflowClient, condition: str) -> list[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    order = ["attributes.start_time DESC"]
    return list(client.search_runs(experiments, condition, max_results=N_MOST, order_by=order))


def _dead(running: list[Run], project: str) -> set[str]:
    """Find the runs of dead processes: their ids."""
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
    while below := {run.info.run_id for run in running if _went_with(run, dead)} - dead:
        dead |= below
    return dead


def _never_began(run: Run, project: str, now: float) -> bool:
    is_of_project = project != "" and run.data.tags.get(tags.PROJECT_URI) == project
    is_made = is_of_project and tags.ENTRY_POINT in run.data.tags and tags.PID not in run.data.tags
    return is_made and now - run.info.start_time / 1000 > BEGINS_S


def _went_with(run: Run, dead: set[str]) -> bool:
    return tags.PID not in run.data.tags and run.data.tags.get(tags.PARENT) in dead
