"""Launching the other steps of a pipeline through MLflow's project runner."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, RunStatus
from mlflow.exceptions import ExecutionException
from mlflow.projects.submitted_run import SubmittedRun

from storage import UserError, checkout, one_line
from storage.tracking import duplicates, fork_server, interrupted, stale_runs, tags
from storage.tracking.processes import is_dead
from storage.tracking.runs import active_info, children

POLL_S = 0.2  # between polls of runs that run at the same time


def launch(step: str, parameters: Mapping[str, str], *, name: str = "") -> str:
    """Run an entry point of this project under the active run and wait for it.

    Args:
        step: entry point.
        parameters: name -> value, as text, as on a command line.
        name: the run's name; empty = the step's.
    Returns:
        The id of the step's run.
    Raises:
        UserError: the step failed; the message carries its own reason.
    """
    began_ms = int(time.time() * 1000)
    try:
        submitted = _submit(step, parameters, name=name or step, synchronous=True)
    except (ExecutionException, KeyboardInterrupt) as error:
        run = _launched(step, active_info().run_id, began_ms)
        if isinstance(error, KeyboardInterrupt):
            _kill(run)
            raise
        if run:
            interrupted.restore(MlflowClient(), run.info.run_id)
            _record_killing_signal(run)
        raise UserError(_failure(step, run, error)) from error
    return str(submitted.run_id)


def launch_all(
    step: str, parameter_sets: Mapping[str, Mapping[str, str]], *, at_once: int
) -> dict[str, str]:
    """Run an entry point of this project with several sets of parameters, some at the same time.

    Args:
        step: entry point.
        parameter_sets: name of a run -> its parameters, as for `launch`.
        at_once: the most runs at the same time.
    Returns:
        Name -> the id of the step's run.
    Raises:
        UserError: one failed; no further run was started, and those already running have ended.
    """
    running: dict[str, SubmittedRun] = {}
    try:
        ended = _run_all(step, parameter_sets, running, at_once)
    except KeyboardInterrupt:
        for one in running.values():
            one.cancel()
        for run in children(active_info().run_id):
            if tags.ENTRY_POINT in run.data.tags:  # a step that this run launched
                _kill(run)
        raise
    for name, one in ended.items():
        if not one.wait():
            run = MlflowClient().get_run(one.run_id)
            raise UserError(f"{name}: {_failure(step, run, ExecutionException(name))}")
    return {name: str(one.run_id) for name, one in ended.items()}


def _run_all(
    step: str,
    parameter_sets: Mapping[str, Mapping[str, str]],
    running: dict[str, SubmittedRun],
    at_once: int,
) -> dict[str, SubmittedRun]:
    """Launch runs until all have ended, or one has failed and the others running have ended.

    Args:
        step, parameter_sets, at_once: as for `launch_all`.
        running: updated in place with the runs in progress, for the caller to cancel.
    """
    waiting, ended = list(parameter_sets), dict[str, SubmittedRun]()
    while waiting or running:
        while waiting and len(running) < at_once:
            name = waiting.pop(0)
            running[name] = _submit(step, parameter_sets[name], name=name, synchronous=False)
        for name in [name for name, one in running.items() if has_ended(one)]:
            ended[name] = running.pop(name)
            waiting = waiting if ended[name].wait() else []
        time.sleep(POLL_S)
    return ended


def has_ended(submitted: SubmittedRun) -> bool:
    """Whether the command of a run has ended, successfully or not."""
    return bool(RunStatus.is_terminated(RunStatus.from_string(submitted.get_status())))


def _submit(
    step: str, parameters: Mapping[str, str], *, name: str, synchronous: bool
) -> SubmittedRun:
    """Start an entry point under the active run; if synchronous, wait for it to end."""
    # `python` in MLproject's commands must be this interpreter
    own, before = str(Path(sys.executable).parent), os.environ["PATH"]
    if before.partition(os.pathsep)[0] != own:
        os.environ["PATH"] = os.pathsep.join((own, before))
    is_forked = synchronous and fork_server.is_running()
    with _without_experiment_name():
        return mlflow.projects.run(
            os.path.relpath(checkout.ROOT),  # usually ".": MLflow cuts a path at a #
            entry_point=step,
            parameters=dict(parameters),
            experiment_id=active_info().experiment_id,
            env_manager="local",
            backend=fork_server.BACKEND if is_forked else "local",
            backend_config={tags.RUN_NAME: name} if is_forked else None,
            run_name=name,
            synchronous=synchronous,
        )


@contextmanager
def _without_experiment_name() -> Iterator[None]:
    """Unset the experiment's name: `mlflow run` refuses a name together with an id."""
    name = os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)
    try:
        yield
    finally:
        if name is not None:
            os.environ["MLFLOW_EXPERIMENT_NAME"] = name


def _kill(run: Run | None) -> None:
    """Close the run of a step that was interrupted together with its parent."""
    if run is None or run.info.status == "FINISHED":
        return
    client, tag_values = MlflowClient(), run.data.tags
    is_at_work = run.info.status == "RUNNING" and tags.PID in tag_values and not is_dead(tag_values)
    # its process ended before it adopted the run, or before it could record a reason
    if tags.FAILURE not in tag_values and not is_at_work:
        stale_runs.close_run(client, run.info.run_id, interrupted.REASON)
    interrupted.restore(client, run.info.run_id)


def _record_killing_signal(run: Run) -> None:
    """Record what killed a step, if a signal did: the step could not record it itself."""
    if tags.FAILURE not in run.data.tags and (reason := fork_server.ended_by()):
        stale_runs.close_run(MlflowClient(), run.info.run_id, reason, status="FAILED")


def _launched(step: str, parent_run_id: str, began_ms: int) -> Run | None:
    """Find the run of a step launched since `began_ms`; None if it never got a run."""
    launched = [
        run
        for run in children(parent_run_id)
        if run.data.tags.get(tags.ENTRY_POINT) == step
        and run.info.start_time >= began_ms
        and run.data.tags.get(tags.FAILURE) != duplicates.REASON
    ]
    return launched[-1] if launched else None


def _failure(step: str, run: Run | None, error: ExecutionException) -> str:
    """Describe why a launched step failed, in its own words if it had a run."""
    if run is None:
        return (
            f"{step} failed before it had a run: {one_line(error)}. See the output above, and "
            f"check that MLproject declares {step}."
        )
    reason = run.data.tags.get(tags.FAILURE) or fork_server.ended_by()
    return f"{step} failed: {reason or f'see the output above and run {run.info.run_id}'}"
