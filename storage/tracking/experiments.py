"""The experiment that runs go to, as the environment names it: find or create it."""

import json
import os
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from mlflow.utils.validation import MAX_EXPERIMENT_NAME_LENGTH

from storage import StorageError, UserError
from storage.tracking import refusals, tags

DEFAULT = "nyc-taxi-experiment"
PIPELINES = "pipelines"  # view of the runs with the columns that matter
VIEW = json.dumps(
    {
        "selectedColumns": [
            *("metrics.`rmse`", "metrics.`test_rmse`", "tags.`model`", "tags.`outcome`"),
            *("tags.`months.train`", "tags.`months.valid`", "tags.`developer`"),
        ]
    }
)
PAGE = """\
Minutes that a taxi trip will take, learned from the TLC's months. A row is a pipeline, and + shows
its steps; its page says what won, by how much, and what to run next.

- `rmse`: error of the best model on the valid months, minutes
- `test_rmse`: error of the registered one on the test months, which nothing was chosen by
- Models compares the models on the same data sets; System metrics of a run are what it cost
"""


def find_experiment() -> Experiment | None:
    """Find the experiment without creating it; None if there is none of its name yet.

    Raises:
        UserError: its name is empty or too long, it is deleted, or MLFLOW_EXPERIMENT_ID is of no
            experiment, or of one with another name.
    """
    by_id, name = os.environ.get("MLFLOW_EXPERIMENT_ID"), os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if by_id is None and name is None:
        name = DEFAULT
    found = _of_id(by_id) if by_id is not None else _of_name(name or "")
    if found and name is not None and found.name != name:
        raise UserError(
            f"MLFLOW_EXPERIMENT_ID {by_id} is of {found.name!r}, and MLFLOW_EXPERIMENT_NAME is "
            f"{name!r}. Unset one of them."
        )
    if found and found.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"The experiment {found.name!r} is deleted. Run `mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME to another."
        )
    return found


def use_experiment() -> str:
    """Make the experiment the one that runs go to, creating it if needed; return its id.

    Raises:
        UserError: as for find_experiment.
        StorageError: its artifacts cannot be written.
    """
    found = find_experiment()
    if found is None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT)
        # if two processes create it at once, this alone may not select it
        found = mlflow.set_experiment(name)
    chosen = mlflow.set_experiment(experiment_id=found.experiment_id)
    add_page_and_view(chosen)
    check_writable(str(chosen.artifact_location))
    return str(chosen.experiment_id)


def add_page_and_view(experiment: Experiment) -> None:
    """Give an experiment a page and a view of its runs, unless it has its own."""
    values = {tags.NOTE: PAGE, tags.VIEW.of(PIPELINES): VIEW}
    for name in values:
        if name not in experiment.tags:
            try:
                MlflowClient().set_experiment_tag(experiment.experiment_id, name, values[name])
            except MlflowException as error:  # some users may write runs, but not this
                if refusals.is_unreachable(error):
                    raise


def check_writable(uri: str) -> None:
    """Refuse a local artifact folder that cannot be written to; a remote one is not checked.

    Raises:
        StorageError: it cannot be written to.
    """
    if not is_local_uri(uri):
        return
    folder = Path(local_file_uri_to_path(uri))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"The artifacts of this experiment cannot be written to {folder}: {error.strerror}. "
            f"Let this user write there, or set MLFLOW_EXPERIMENT_NAME to an experiment that keeps "
            f"them elsewhere: mlflow experiments create -n <name> --artifact-location <folder>."
        ) from error


def _of_id(number: str) -> Experiment:
    try:
        found = MlflowClient().get_experiment(number) if number else None
    except MlflowException as error:
        if not refusals.is_no_such_id(error):
            raise
        found = None
    if found is None:
        raise UserError(
            f"There is no experiment {number!r} in this store. Unset MLFLOW_EXPERIMENT_ID, or set "
            f"it to one that `mlflow experiments search` lists."
        )
    return found


def _of_name(name: str) -> Experiment | None:
    if not name.strip():
        raise UserError(
            f"MLFLOW_EXPERIMENT_NAME is {name!r}. Unset it for {DEFAULT}, or set it to a name."
        )
    found: Experiment | None = MlflowClient().get_experiment_by_name(name)
    if found is None and len(name) > MAX_EXPERIMENT_NAME_LENGTH:
        raise UserError(
            f"MLFLOW_EXPERIMENT_NAME, {name[:20]}…, has {len(name)} characters, and MLflow takes "
            f"{MAX_EXPERIMENT_NAME_LENGTH}. Set it to a shorter name."
        )
    return found
