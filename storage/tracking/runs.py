"""Runs in MLflow: starting them, launching other steps, artifacts, lineage tags."""

import csv
import getpass
import hashlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException, MlflowException

from storage import StorageError, StoreGoneError
from storage.repro import checkout
from storage.tracking import processes, stale_runs, store

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
        store.prepare()
        if "MLFLOW_RUN_ID" not in os.environ:
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT))
        run = mlflow.start_run()
        code = checkout.read()
        mlflow.set_tags(self._tags(run, code))
        if "mlflow.parentRunId" in run.data.tags:
            return
        if code.diff:
            mlflow.log_text(code.diff, "uncommitted.diff")
        if closed := stale_runs.close():
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
            reason = str(error) if isinstance(error, (ValueError, StorageError)) else repr(error)
            mlflow.set_tag("failure", reason)
            mlflow.end_run("FAILED")

    def _tags(self, run: Run, code: checkout.Checkout) -> dict[str, str]:
        tags = {
            "step": self.step,
            "mlflow.runName": _run_name(run, self.step),
            "developer": self.developer or checkout.user_name() or getpass.getuser(),
            "git_dirty": str(bool(code.diff)).lower(),
            **processes.tags(),
        }
        if code.commit:
            tags["mlflow.source.git.commit"] = code.commit
        source = run.data.tags.get("mlflow.source.name", "")
        if code.repository:
            tags["mlflow.source.git.repoURL"] = code.repository
            # a step of a cloned project names the temporary clone, which helps nobody
            if Path(source).resolve().is_relative_to(tempfile.gettempdir()):
                source = code.repository
        if source:
            tags["mlflow.source.name"] = checkout.without_credentials(source)
        return tags


@contextmanager
def plan_run() -> Iterator[None]:
    """Open the run that `mlflow run` made for a plan; where it made none, there is none."""
    if "MLFLOW_RUN_ID" not in os.environ:
        yield
        return
    store.prepare()
    with mlflow.start_run():
        mlflow.set_tags({"step": "plan", "mlflow.runName": "plan"})
        yield


def experiment_id() -> str:
    """Find the experiment that runs go to, without making it; empty where there is none yet."""
    if active := mlflow.active_run():
        return str(active.info.experiment_id)
    if not store.exists():
        return ""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)
    found = MlflowClient().get_experiment_by_name(name)
    return str(found.experiment_id) if found else ""


def is_gone(error: MlflowException) -> bool:
    """Tell whether a call failed because no server answered, after all of MLflow's retries."""
    return isinstance(error.__context__, requests.RequestException)


def launch(step: str, parameters: Mapping[str, Any]) -> str:
    """Run an entry point of this project under the active run and wait for it.

    Raises:
        StorageError: it failed; the message carries that step's own reason.
    """
    parent = mlflow.active_run().info
    # `python` in MLproject's commands must be the one that runs now
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    try:
        submitted = mlflow.projects.run(
            str(checkout.ROOT),
            entry_point=step,
            parameters={name: checkout.as_text(value) for name, value in parameters.items()},
            experiment_id=parent.experiment_id,
            env_manager="local",
            run_name=step,
        )
    except ExecutionException as error:
        raise StorageError(f"{step} failed: {_failure(parent.run_id)}") from error
    return str(submitted.run_id)


def finished(run_id: str, step: str) -> Run:
    """Look up a run that must be a finished one of this step.

    Raises:
        StorageError: there is no such run, it is of another step, or it has not finished.
    """
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        raise StorageError(f"No run {run_id!r} in this store. Check {step}_run_id.") from error
    found = run.data.tags.get("step")
    if found != step:
        of = f"step {found!r}" if found else "no step of this project"
        raise StorageError(f"Run {run_id} is of {of}. Pass a {step} run.")
    if run.info.status != "FINISHED":
        raise StorageError(f"Run {run_id} is {run.info.status}. Pass a FINISHED {step} run.")
    return run


def active() -> Run:
    """Read the active run anew, with all its tags and metrics."""
    return mlflow.get_run(mlflow.active_run().info.run_id)


def children(run_id: str) -> list[Run]:
    """List the runs directly under a run, oldest first."""
    run = mlflow.get_run(run_id)
    found: list[Run] = mlflow.search_runs(
        [run.info.experiment_id],
        filter_string=f"tags.mlflow.parentRunId = '{run_id}'",
        order_by=["attributes.start_time ASC"],
        output_format="list",
    )
    return found


def fetch(run_id: str, artifact: str) -> Path:
    """Bring an artifact of a run to this machine.

    Raises:
        StorageError: the run has no such artifact.
    """
    try:
        folder = mlflow.get_run(run_id).info.artifact_uri
        # by its own URI a file on this machine is used where it lies, by run_id it is copied
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{folder}/{artifact}"))
    except (MlflowException, OSError) as error:
        raise StorageError(
            f"Run {run_id} has no artifact {artifact}. Was it deleted? Run that step again."
        ) from error


def log_dataset(*, name: str, uri: str, sha256: str, context: str) -> None:
    """Record on the active run which bytes went in, as an MLflow data set."""
    source = CodeDatasetSource(tags={"uri": uri, "sha256": sha256})
    dataset = MetaDataset(source, name=name, digest=sha256[:DIGEST_CHARS])
    mlflow.log_input(dataset, context=context)


def log_table(rows: Sequence[Mapping[str, Any]], artifact: str) -> None:
    """Write rows as a CSV artifact, which the UI shows as a table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    mlflow.log_text(text.getvalue(), artifact)


def sha256_of(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def child_run(name: str, **tags: str) -> Iterator[mlflow.ActiveRun]:
    """Open a run nested in the active one, with the parent's developer and state of the code."""
    inherited = inherited_tags(active()) | processes.tags()
    with mlflow.start_run(run_name=name, nested=True, tags=inherited | tags) as run:
        yield run


def inherited_tags(parent: Run) -> dict[str, str]:
    """Give the tags a nested run has from its parent: who, and which code."""
    return {
        key: value
        for key, value in parent.data.tags.items()
        if key in ("developer", "git_dirty") or key.startswith("mlflow.source.")
    }


def _run_name(run: Run, step: str) -> str:
    """Name a run for its step, unless somebody gave it a name of its own."""
    made_up = re.fullmatch(r"[a-z]+-[a-z]+-[0-9]+", run.info.run_name or "")
    return step if made_up or not run.info.run_name else str(run.info.run_name)


def _failure(parent_run_id: str) -> str:
    run = children(parent_run_id)[-1]
    return str(run.data.tags.get("failure", f"see the output above and run {run.info.run_id}"))
