"""Whether a step has been run already: the run to reuse, or why there is none."""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException

from storage import StorageError
from storage.repro import step_key
from storage.repro.step_key import StepKey
from storage.tracking import artifacts, refusals, tags
from storage.tracking.query import both, differs, equals
from storage.tracking.registry import CHAMPION

N_NEWEST = 5  # runs with the right key to check; the first complete one is reused
N_CHILDREN = 50_000  # the most that MLflow returns at once
FIRST_TIME = "for the first time in this experiment"
# MLflow adds it to a model that is loaded by its registered name, and removes it again
LOADED_NOTE = "registered_model_meta"
N_SHOWN = 2  # differences that fit on a line


class ReuseDecision(NamedTuple):
    """Whether a step is run or its result is reused, and why."""

    step: str
    run: Run | None  # to reuse; None = the step runs
    reason: str  # of a reused run its age and developer; else what has changed

    @property
    def summary(self) -> str:
        """The decision and its reason: reused 1a2b3c4d… (3 min ago, ana)."""
        return (
            f"reused {short_id(self.run)} ({self.reason})" if self.run else f"runs, {self.reason}"
        )

    @property
    def line(self) -> str:
        """The same as a line that begins with the step."""
        return f"{self.step}: {self.summary}"


def find_reusable(key: StepKey, experiment_id: str) -> ReuseDecision:
    """Find a finished run with this very key that is complete and not deleted, by one search.

    Further searches find out what has changed, but only if there is no such run.
    """
    if not experiment_id:
        return ReuseDecision(key.step, None, FIRST_TIME)
    losses = []
    for run in _search(experiment_id, equals(f"tags.{tags.KEY}", key.sha256), "FINISHED", N_NEWEST):
        loss = describe_loss(run)
        if not loss:
            return ReuseDecision(key.step, run, _age_and_author(run))
        losses.append(loss)
    return ReuseDecision(
        key.step, None, losses[0] if losses else _describe_changes(key, experiment_id)
    )


def find_tagged(name: str, value: str, experiment_id: str) -> Iterable[Run]:
    """List the newest finished runs with this value of a tag, at most N_NEWEST."""
    if not experiment_id:
        return []
    return _search(experiment_id, equals(f"tags.`{name}`", value), "FINISHED", N_NEWEST)


def tag_key(key: StepKey) -> None:
    """Write the step key, and what it was made of, to the active run."""
    mlflow.log_text(key.to_json(), tags.KEY_FILE)
    mlflow.set_tag(tags.KEY, key.sha256)


def record_outputs() -> None:
    """Record the outputs of the active run, if it has a key: its files, models and child runs."""
    active = mlflow.active_run()
    run = MlflowClient().get_run(active.info.run_id) if active else None
    if run and tags.KEY in run.data.tags:
        mlflow.log_text(json.dumps(_outputs(run), indent=1, sort_keys=True), tags.OUTPUTS)


def describe_loss(run: Run) -> str:
    """Describe what a finished run no longer has; empty if it is complete.

    A run counts as deleted with the pipeline it belonged to; a file as lost if its size differs.

    Raises:
        MlflowException, OSError, StorageError: the store does not answer, or refuses.
    """
    try:
        if deleted := next(_deleted_above(run), None):
            return f"run {deleted[:8]}…, which {short_id(run)} belonged to, is deleted"
        present, recorded = _outputs(run), _read_json(run, tags.OUTPUTS)
        for name in sorted(recorded):
            if name not in present or present[name] != recorded[name]:
                return f"{name} of {short_id(run)} is gone"
    except (MlflowException, OSError, StorageError, ValueError) as error:
        if not _means_loss(error):
            raise
        return f"what {short_id(run)} wrote is missing now"
    return _describe_champion_change(run)


def _means_loss(error: Exception) -> bool:
    """Whether an error means that something is lost, not that the store could not answer."""
    if isinstance(error, requests.RequestException):  # these are OSErrors, and some are ValueErrors
        return False
    lost = (artifacts.LostError, FileNotFoundError, NotADirectoryError, ValueError)
    return isinstance(error, lost) or refusals.is_missing(error)


def newest(step: str, experiment_id: str) -> Run | None:
    """Return the run of a step that started last, however it ended; None if there is none."""
    if not experiment_id:
        return None
    return _latest(experiment_id, equals(f"tags.{tags.STEP}", step))


def short_id(run: Run) -> str:
    """Shorten a run's id for a line that a person reads."""
    return f"{run.info.run_id[:8]}…"


def _age_and_author(run: Run) -> str:
    seconds = max(0.0, time.time() - run.info.end_time / 1000)
    units = ((86_400, "d"), (3_600, "h"), (60, "min"))
    ago = next((f"{seconds // n:.0f} {name}" for n, name in units if seconds >= n), "seconds")
    return f"{ago} ago, {run.data.tags.get(tags.DEVELOPER, 'nobody named')}"


def _describe_changes(key: StepKey, experiment_id: str) -> str:
    """Describe what has changed since the last run, or why one with the same key is no use."""
    is_same = equals(f"tags.{tags.KEY}", key.sha256)
    if same := _latest(experiment_id, is_same, ViewType.ALL):
        is_deleted = same.info.lifecycle_stage == LifecycleStage.DELETED
        return (
            f"{short_id(same)} with the same key is {'deleted' if is_deleted else same.info.status}"
        )
    last = _comparable(key, experiment_id) or newest(key.step, experiment_id)
    if last is None:
        return FIRST_TIME
    if tags.KEY not in last.data.tags and last.info.status != "FINISHED":
        return f"{short_id(last)} is {last.info.status}"
    try:
        changes = step_key.key_differences(_read_json(last, tags.KEY_FILE), key)
    except (MlflowException, OSError, StorageError, ValueError):
        return f"what {short_id(last)} depended on is not known"
    more = f" and {len(changes) - N_SHOWN} more" if len(changes) > N_SHOWN else ""
    return f"{', '.join(changes[:N_SHOWN])}{more} since {short_id(last)}"


def _comparable(key: StepKey, experiment_id: str) -> Run | None:
    """Return the last run of this step with a key, preferably of the same taxi; None if none."""
    # a run that has just begun has no key
    is_keyed = both(equals(f"tags.{tags.STEP}", key.step), differs(f"tags.{tags.KEY}", ""))
    values = {**key.inputs, **key.parameters}  # a parameter of preprocess, an input of the others
    name = tags.TAXI if tags.TAXI in values else tags.MODEL_NAME  # register's, of one taxi
    is_same_subject = equals(f"tags.{name}", values.get(name, ""))
    same_subject = _latest(experiment_id, both(is_keyed, is_same_subject))
    return same_subject or _latest(experiment_id, is_keyed)


def _latest(experiment_id: str, condition: str, which: int = ViewType.ACTIVE_ONLY) -> Run | None:
    return next(iter(_search(experiment_id, condition, "", 1, which)), None)


def _search(
    experiment_id: str,
    condition: str,
    status: str,
    n_most: int,
    which: int = ViewType.ACTIVE_ONLY,
) -> Iterable[Run]:
    has_status = equals("attributes.status", status) if status else ""
    newest: list[Run] = MlflowClient().search_runs(
        [experiment_id],
        both(condition, has_status),
        run_view_type=which,
        order_by=["attributes.start_time DESC"],
        max_results=n_most,
    )
    return newest


def _deleted_above(run: Run) -> Iterator[str]:
    """Yield the ids of the ancestors of a run that are marked as deleted."""
    client = MlflowClient()
    while parent_id := run.data.tags.get(tags.PARENT):
        run = client.get_run(parent_id)
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            yield parent_id


def _outputs(run: Run) -> dict[str, int | None]:
    """List the outputs of a step: child runs, and files, also of models -> size in bytes."""
    client = MlflowClient()
    below = client.search_runs(
        [run.info.experiment_id],
        equals(f"tags.{tags.PARENT}", run.info.run_id),
        max_results=N_CHILDREN,
    )
    # child runs that are steps are inputs of this one, not its outputs
    parts = [other for other in below if tags.STEP not in other.data.tags]
    outputs: dict[str, int | None] = {f"run {part.info.run_id}": None for part in parts}
    outputs |= artifacts.list_files(run.info.artifact_uri)
    for one in (run, *parts):
        for output in one.outputs.model_outputs if one.outputs else ():
            model = client.get_logged_model(output.model_id)
            files = artifacts.list_files(model.artifact_location)
            own = {path: size for path, size in files.items() if path != LOADED_NOTE}
            outputs |= {f"models:/{model.model_id}/{path}": size for path, size in own.items()}
    return outputs


def _read_json(run: Run, artifact: str) -> dict[str, Any]:
    return dict(json.loads(artifacts.read_text(run.info.run_id, artifact)))


def _describe_champion_change(run: Run) -> str:
    """Describe what the registry has lost or moved since a run of register; empty if nothing."""
    tag_values = run.data.tags
    if not tag_values.get(tags.VERSION):
        return ""
    client, name, version = MlflowClient(), tag_values[tags.MODEL_NAME], tag_values[tags.VERSION]
    champion = tag_values.get(tags.CHAMPION_VERSION, version)
    try:
        client.get_model_version(name, version)
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if not refusals.is_missing(error):
            raise
        return f"version {version} of {name} is gone from the registry"
    now = str(aliases.get(CHAMPION, ""))
    if now == champion:
        return ""
    return f"the champion is version {now or 'none'} now, not {champion or 'none'}"
