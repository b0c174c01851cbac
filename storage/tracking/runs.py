"""Runs in MLflow: starting them, launching other steps, looking them up, lineage tags."""

import getpass
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import mlflow
import psutil
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Run, RunInfo
from mlflow.exceptions import ExecutionException, MlflowException
from mlflow.utils import name_utils

from storage import StoreGoneError, UserError, checkout, one_line
from storage.tracking import processes, stale_runs, store, tags
from storage.tracking.query import equals
from storage.uris import without_credentials, without_user

DEFAULT_EXPERIMENT = "nyc-taxi-experiment"
DIGEST_CHARS = 36  # what MLflow's store has room for


class StepRun:
    """The MLflow run of one step: the one `mlflow run` made, or a new one.

    Leaving it closes the run: FINISHED, FAILED with the reason as tag `failure`, or KILLED where
    the step was interrupted.
    """

    def __init__(self, step: str, developer: str) -> None:
        self.step = step
        self.developer = developer

    def __enter__(self) -> None:
        """Start or adopt the run and tag it with where it comes from."""
        store.prepare_store()
        if "MLFLOW_RUN_ID" not in os.environ:
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT))
        run = mlflow.start_run()
        code = checkout.read()
        mlflow.set_tags(self._tags(run, code))
        if tags.PARENT in run.data.tags:
            return
        if code.diff:
            mlflow.log_text(code.diff, tags.UNCOMMITTED)
        if closed := stale_runs.close_stale_runs():
            number = f"{len(closed)} run{'s' if closed[1:] else ''}"
            print(f"{self.step}: closed {number} that a dead process had left RUNNING")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the run with the status and the reason that fit."""
        if kind is None:
            mlflow.end_run("FINISHED")
        elif issubclass(kind, StoreGoneError):
            # MLflow would try for minutes, here and once more when Python ends
            os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        elif issubclass(kind, KeyboardInterrupt):
            mlflow.end_run("KILLED")
        else:
            reason = str(error) if isinstance(error, (ValueError, UserError)) else repr(error)
            mlflow.set_tag(tags.FAILURE, without_user(reason))
            mlflow.end_run("FAILED")

    def _tags(self, run: Run, code: checkout.Checkout) -> dict[str, str]:
        values: dict[str, str] = {
            tags.STEP: self.step,
            tags.RUN_NAME: _run_name(run, self.step),
            tags.DEVELOPER: self.developer or checkout.user_name() or _login_name(),
            tags.DIRTY: str(bool(code.diff)).lower(),
            **processes.process_tags(),
        }
        if code.commit:
            values[tags.COMMIT] = code.commit
        source = run.data.tags.get(tags.PROJECT_URI, "")
        if code.repository:
            values[tags.REPOSITORY] = code.repository
            # a step of a cloned project names the temporary clone, which helps nobody
            if Path(source).resolve().is_relative_to(tempfile.gettempdir()):
                source = code.repository
        if source:
            values[tags.PROJECT_URI] = without_credentials(source)
        return values


@contextmanager
def plan_run() -> Iterator[None]:
    """Open the run that `mlflow run` made for a plan; where it made none, there is none."""
    if "MLFLOW_RUN_ID" not in os.environ:
        yield
        return
    store.prepare_store()
    with mlflow.start_run():
        mlflow.set_tags({tags.STEP: "plan", tags.RUN_NAME: "plan"})
        yield


def experiment_id() -> str:
    """Find the experiment that runs go to, without making it; empty where there is none yet."""
    if active := mlflow.active_run():
        return str(active.info.experiment_id)
    if not store.exists():
        return ""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)
    experiment = MlflowClient().get_experiment_by_name(name)
    return str(experiment.experiment_id) if experiment else ""


def launch(step: str, parameters: Mapping[str, str]) -> str:
    """Run an entry point of this project under the active run and wait for it.

    Args:
        step: entry point.
        parameters: their texts, as they are typed.
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
            str(checkout.ROOT),
            entry_point=step,
            parameters=dict(parameters),
            experiment_id=parent.experiment_id,
            env_manager="local",
            run_name=step,
        )
    except ExecutionException as error:
        raise UserError(_failure(step, parent.run_id, began_ms, error)) from error
    return str(submitted.run_id)


def finished(run_id: str, step: str) -> Run:
    """Look up a run that must be a finished one of this step.

    Raises:
        UserError: there is no such run, it is of another step, or it has not finished.
    """
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"No run {run_id!r} in this store. Check {step}_run_id.") from error
    actual = run.data.tags.get(tags.STEP)
    if actual != step:
        of = f"step {actual!r}" if actual else "no step of this project"
        raise UserError(f"Run {run_id} is of {of}. Pass a {step} run.")
    if run.info.status != "FINISHED":
        raise UserError(f"Run {run_id} is {run.info.status}. Pass a FINISHED {step} run.")
    return run


def active() -> Run:
    """Read the active run anew, with all its tags and metrics."""
    return mlflow.get_run(active_info().run_id)


def experiment_name() -> str:
    """Return the name of the experiment that the active run is in."""
    return str(mlflow.get_experiment(active_info().experiment_id).name)


def active_info() -> RunInfo:
    """Return what is known of the active run without asking the store.

    Raises:
        RuntimeError: no run is active.
    """
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("No run is active here.")
    return run.info


def children(run_id: str) -> list[Run]:
    """List the runs directly under a run, oldest first."""
    run = mlflow.get_run(run_id)
    below: list[Run] = mlflow.search_runs(
        [run.info.experiment_id],
        filter_string=equals(f"tags.{tags.PARENT}", run_id),
        order_by=["attributes.start_time ASC"],
        output_format="list",
    )
    return below


def log_dataset(*, name: str, uri: str, sha256: str, context: str) -> None:
    """Record on the active run which bytes went in, as an MLflow data set."""
    source = CodeDatasetSource(tags={"uri": uri, "sha256": sha256})
    dataset = _HashedDataset(source, name=name, digest=sha256[:DIGEST_CHARS])
    mlflow.log_input(dataset, context=context)


class _HashedDataset(MetaDataset):
    """A data set of which MLflow knows the hash and no more."""

    @property
    def profile(self) -> None:
        """No profile."""


@contextmanager
def child_run(name: str, marks: Mapping[str, str]) -> Iterator[mlflow.ActiveRun]:
    """Open a run nested in the active one, with the parent's developer and state of the code.

    Args:
        name: of the run.
        marks: its own tags.
    """
    inherited = inherited_tags(active()) | processes.process_tags()
    with mlflow.start_run(run_name=name, nested=True, tags={**inherited, **marks}) as run:
        yield run


def inherited_tags(parent: Run) -> dict[str, str]:
    """Return the tags a nested run has from its parent: who, and which code."""
    return {
        key: value
        for key, value in parent.data.tags.items()
        if key in (tags.DEVELOPER, tags.DIRTY) or key.startswith(tags.CODE)
    }


def _login_name() -> str:
    """Return the name of the user who is logged in, or the number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _run_name(run: Run, step: str) -> str:
    """Name a run for its step, unless somebody gave it a name of its own."""
    name = str(run.info.run_name or "")
    return name if name and (_is_given(name) or not _is_made_up(name)) else step


def _is_made_up(name: str) -> bool:
    """Whether MLflow may have made a name from its lists of words: fearless-fox-123."""
    words = re.fullmatch(r"([a-z]+)-([a-z]+)-[0-9]+", name)
    if not words:
        return False
    predicates = {word.lower() for word in name_utils._GENERATOR_PREDICATES}
    nouns = {word.lower() for word in name_utils._GENERATOR_NOUNS}
    return words[1] in predicates and words[2] in nouns


def _is_given(name: str) -> bool:
    """Whether a process above this one was started with this name: mlflow run --run-name ..."""
    commands = []
    for process in psutil.Process().parents():
        with suppress(psutil.Error):  # one that may not be looked at
            commands.append(process.cmdline())
    options = {("--run-name", name)}
    return any(
        f"--run-name={name}" in words or options & set(pairwise(words)) for words in commands
    )


def _failure(step: str, parent_run_id: str, began_ms: int, error: ExecutionException) -> str:
    """Describe why a launched step failed, in its own words where it had a run."""
    launched = [
        run
        for run in children(parent_run_id)
        if run.data.tags.get(tags.ENTRY_POINT) == step and run.info.start_time >= began_ms
    ]
    if not launched:
        return (
            f"{step} failed before it had a run: {one_line(error)}. See the output above, and "
            f"check that MLproject declares {step}."
        )
    run = launched[-1]
    reason = run.data.tags.get(tags.FAILURE, f"see the output above and run {run.info.run_id}")
    return f"{step} failed: {reason}"
