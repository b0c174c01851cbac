"""Whether a step has been run already: the run whose result can be taken, or why there is none."""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from storage.repro import step_key
from storage.repro.step_key import StepKey

TAG = "step_key"
KEY_FILE = "step_key.json"  # what the key was made of
OUTPUTS_FILE = "outputs.json"  # what the step has written, so that a loss is noticed
N_NEWEST = 5  # runs with the right key that are looked at; one is enough if it is whole
N_CHILDREN = 50_000  # the most that MLflow gives at once
FIRST = "for the first time in this experiment"
N_SAID = 2  # differences that fit into a line


class ReuseDecision(NamedTuple):
    """What becomes of a step, and why."""

    step: str
    run: Run | None  # to take instead of running; None = it runs
    why: str

    @property
    def line(self) -> str:
        """Say it in one line."""
        return f"{self.step}: {self.why}"


def find_reusable(key: StepKey, experiment_id: str) -> ReuseDecision:
    """Look for a finished run of this very step, whole and not deleted, in one query.

    Another query finds out what has changed, but only where there is no such run.
    """
    if not experiment_id:
        return ReuseDecision(key.step, None, f"runs, {FIRST}")
    reasons = []
    for run in _search(experiment_id, f"tags.{TAG} = '{key.sha256}'", "FINISHED", N_NEWEST):
        reason = what_is_lost(run)
        if not reason:
            return ReuseDecision(key.step, run, f"reused {short(run)} ({_about(run)})")
        reasons.append(reason)
    return ReuseDecision(
        key.step, None, f"runs, {reasons[0] if reasons else _news(key, experiment_id)}"
    )


def tag(key: StepKey) -> None:
    """Write the key of the step that is running to its run, and what it is made of."""
    mlflow.log_text(key.to_json(), KEY_FILE)
    mlflow.set_tag(TAG, key.sha256)


def record_outputs() -> None:
    """Write down what the active run has come to: its files, its models and the runs below it."""
    active = mlflow.active_run()
    run = MlflowClient().get_run(active.info.run_id) if active else None
    if run and TAG in run.data.tags:
        mlflow.log_text(json.dumps(_outputs(run), indent=1, sort_keys=True), OUTPUTS_FILE)


def what_is_lost(run: Run) -> str:
    """Say what a finished run no longer has, empty where it is whole.

    A run counts as deleted with the pipeline it belonged to; a file as lost if its size differs.
    """
    try:
        if deleted := next(_deleted_above(run), None):
            return f"run {deleted[:8]}…, which {short(run)} belonged to, is deleted"
        there, wanted = _outputs(run), _read_json(run, OUTPUTS_FILE)
        for what in sorted(wanted):
            if what not in there or there[what] != wanted[what]:
                return f"{what} of {short(run)} is gone"
    except (MlflowException, OSError, ValueError):
        return f"what {short(run)} wrote cannot be found any more"
    return _moved_champion(run)


def newest(step: str, experiment_id: str) -> Run | None:
    """Give the run of a step that started last, however it ended; None where there is none."""
    if not experiment_id:
        return None
    return next(iter(_search(experiment_id, f"tags.step = '{step}'", "", 1)), None)


def short(run: Run) -> str:
    """Name a run in a line for a person."""
    return f"{run.info.run_id[:8]}…"


def _about(run: Run) -> str:
    seconds = max(0.0, time.time() - run.info.end_time / 1000)
    units = ((86_400, "d"), (3_600, "h"), (60, "min"))
    ago = next((f"{seconds // n:.0f} {name}" for n, name in units if seconds >= n), "seconds")
    return f"{ago} ago, {run.data.tags.get('developer', 'nobody named')}"


def _news(key: StepKey, experiment_id: str) -> str:
    """Say what has changed since the last run of this step."""
    last = newest(key.step, experiment_id)
    if last is None:
        return FIRST
    if last.data.tags.get(TAG) == key.sha256:
        return f"{short(last)} with the same key is {last.info.status}"
    try:
        changes = step_key.difference(_read_json(last, KEY_FILE), key)
    except (MlflowException, OSError, ValueError):
        return f"what {short(last)} depended on is not known"
    more = f" and {len(changes) - N_SAID} more" if len(changes) > N_SAID else ""
    return f"{', '.join(changes[:N_SAID])}{more} since {short(last)}"


def _search(experiment_id: str, tag: str, status: str, n_most: int) -> Iterable[Run]:
    wanted = f"{tag} and attributes.status = '{status}'" if status else tag
    newest: list[Run] = MlflowClient().search_runs(
        [experiment_id], wanted, order_by=["attributes.start_time DESC"], max_results=n_most
    )
    return newest


def _deleted_above(run: Run) -> Iterator[str]:
    """Give the ids of the runs above this one that are deleted, for good or not."""
    client = MlflowClient()
    while parent_id := run.data.tags.get("mlflow.parentRunId"):
        run = client.get_run(parent_id)
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            yield parent_id


def _outputs(run: Run) -> dict[str, int | None]:
    """List what a step has written: files with their bytes, and the runs and models below it."""
    client = MlflowClient()
    below = client.search_runs(
        [run.info.experiment_id],
        f"tags.mlflow.parentRunId = '{run.info.run_id}'",
        max_results=N_CHILDREN,
    )
    # steps below are what this one builds on, not what it has made
    parts = [other for other in below if "step" not in other.data.tags]
    found: dict[str, int | None] = {f"run {part.info.run_id}": None for part in parts}
    found |= _files(run.info.artifact_uri)
    for one in (run, *parts):
        for output in one.outputs.model_outputs if one.outputs else ():
            model = client.get_logged_model(output.model_id)
            files = _files(model.artifact_location)
            found |= {f"models:/{model.model_id}/{path}": size for path, size in files.items()}
    return found


def _files(uri: str) -> dict[str, int | None]:
    """List the files below a URI with their bytes, in however many folders."""
    repository = get_artifact_repository(uri)
    found, folders = {}, [""]
    while folders:
        for entry in repository.list_artifacts(folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                found[entry.path] = entry.file_size
    return found


def _read_json(run: Run, artifact: str) -> dict[str, Any]:
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{artifact}")
    return dict(json.loads(text))


def _moved_champion(run: Run) -> str:
    """Say what the registry has lost or moved since a run of register, empty if nothing."""
    tags = run.data.tags
    if "version" not in tags:
        return ""
    client, name, version = MlflowClient(), tags["model_name"], tags["version"]
    champion = tags.get("champion_version", version)
    try:
        client.get_model_version(name, version)
        aliases = client.get_registered_model(name).aliases
    except MlflowException:
        return f"version {version} of {name} is gone from the registry"
    now = str(aliases.get("champion", ""))
    if now == champion:
        return ""
    return f"the champion is version {now or 'none'} now, not {champion or 'none'}"
