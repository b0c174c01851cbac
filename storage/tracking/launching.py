"""Launching the other steps of a pipeline through MLflow's project runner."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException

from storage import UserError, checkout, one_line
from storage.tracking import doubles, interrupted, stale_runs, tags
from storage.tracking.runs import active_info, children


def launch(step: str, parameters: Mapping[str, str], *, name: str = "") -> str:
    """Run an entry point of this project under the active run and wait for it.

    Args:
        step: entry point.
        parameters: their texts, as they are typed.
        name: of its run; empty = the step's.
    Returns:
        The id of the step's run.
    Raises:
        UserError: it failed; the message carries that step's own reason.
    """
    parent = active_info()
    # `python` in MLproject's commands must be the one that runs now
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    began_ms = int(time.time() * 1000)
    try:
        submitted = mlflow.projects.run(
            os.path.relpath(checkout.ROOT),  # "." as a rule: what follows a # would be cut off
            entry_point=step,
            parameters=dict(parameters),
            experiment_id=parent.experiment_id,
            env_manager="local",
            run_name=name or step,
        )
    except (ExecutionException, KeyboardInterrupt) as error:
        run = _launched(step, parent.run_id, began_ms)
        if isinstance(error, KeyboardInterrupt):
            _kill(run)
            raise
        if run:
            interrupted.restore(MlflowClient(), run.info.run_id)
        raise UserError(_failure(step, run, error)) from error
    return str(submitted.run_id)


def _kill(run: Run | None) -> None:
    """Close the run of a step that was interrupted together with the one that launched it."""
    if run is None or run.info.status == "FINISHED":
        return
    client = MlflowClient()
    is_begun = tags.PID in run.data.tags  # else its process was stopped before it took the run
    if not is_begun:
        stale_runs.close_run(client, run.info.run_id, interrupted.REASON)
    interrupted.restore(client, run.info.run_id)


def _launched(step: str, parent_run_id: str, began_ms: int) -> Run | None:
    """Find the run of a step that was launched since; None where it never had one."""
    launched = [
        run
        for run in children(parent_run_id)
        if run.data.tags.get(tags.ENTRY_POINT) == step
        and run.info.start_time >= began_ms
        and run.data.tags.get(tags.FAILURE) != doubles.REASON
    ]
    return launched[-1] if launched else None


def _failure(step: str, run: Run | None, error: ExecutionException) -> str:
    """Describe why a launched step failed, in its own words where it had a run."""
    if run is None:
        return (
            f"{step} failed before it had a run: {one_line(error)}. See the output above, and "
            f"check that MLproject declares {step}."
        )
    reason = run.data.tags.get(tags.FAILURE, f"see the output above and run {run.info.run_id}")
    return f"{step} failed: {reason}"
