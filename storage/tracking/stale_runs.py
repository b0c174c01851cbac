"""Runs that a dying process left RUNNING, closed by the next pipeline on its machine."""

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from storage.tracking import processes, tags
from storage.tracking.query import equals

N_MOST = 1000  # a shared server may have more of this machine's running; the next time sees them
REASON = "its process ended without closing it"


def close_stale_runs() -> list[str]:
    """Close as KILLED what dead processes of this machine left RUNNING; returns the run ids.

    A run that names no process goes with the run above it. One whose process lives, or is
    elsewhere, stays as it is, and so does the active one.
    """
    client = MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    is_running = equals("attributes.status", "RUNNING")
    running = client.search_runs(experiments, is_running, max_results=N_MOST)
    dead = {run.info.run_id for run in running if processes.is_dead(run.data.tags)}
    while below := {run.info.run_id for run in running if _went_with(run, dead)} - dead:
        dead |= below
    if active := mlflow.active_run():
        dead.discard(active.info.run_id)
    for run_id in sorted(dead):
        client.set_tag(run_id, tags.FAILURE, REASON)
        client.set_terminated(run_id, "KILLED")
    return sorted(dead)


def _went_with(run: Run, dead: set[str]) -> bool:
    return tags.PID not in run.data.tags and run.data.tags.get(tags.PARENT) in dead
