"""Duplicates that a retried request created, because the first response was lost.

MLflow's client retries a request that got no response, and a server that had already done its work
does it again. So code that creates something on a server looks for duplicates afterwards.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from storage.tracking import closing, refusals, stale_runs, tags
from storage.tracking.query import both, equals

REASON = "created twice: the server's answer was lost"
SERVERS = ("http://", "https://")  # with a database there are no such retries


def close_duplicate_runs(run: Run) -> None:
    """Close as KILLED the empty duplicates of a new run.

    A retried request carries the same tags and the same start time, to the millisecond.

    Args:
        run: the run in use, with all its tags.
    """
    if not mlflow.get_tracking_uri().startswith(SERVERS):
        return
    client = MlflowClient()
    condition = both(
        f"attributes.start_time = {run.info.start_time}", equals("attributes.status", "RUNNING")
    )
    for other in client.search_runs([run.info.experiment_id], condition):
        if _is_duplicate(other, run):
            stale_runs.close_run(client, other.info.run_id, REASON)


def _is_duplicate(other: Run, run: Run) -> bool:
    # the store generates a name for a run that was created without one
    same = {key: value for key, value in other.data.tags.items() if key != tags.RUN_NAME}
    is_empty = not other.data.params and not other.data.metrics
    return (
        other.info.run_id != run.info.run_id and is_empty and same.items() <= run.data.tags.items()
    )


def log_model_once(
    run_id: str,
    name: str,
    save: Callable[..., None],
    *,
    params: Mapping[str, str] | None = None,
    tag_values: Mapping[str, str] | None = None,
) -> str:
    """Log a model of a run exactly once, linked to the run once, without duplicates.

    A flavour's own log_model fails if a store refuses a link that exists already; this does not.

    Args:
        run_id: the run that trained it.
        name: the model's name.
        save: a flavour's save_model, with all arguments bound but path and mlflow_model.
        params: what it was fitted with, in addition to the run's parameters.
        tag_values: the model's tags.
    Returns:
        The model's URI, models:/m-...
    """
    client = MlflowClient()
    run = client.get_run(run_id)
    try:
        model = mlflow.initialize_logged_model(
            name,
            run_id,
            params={**run.data.params, **(params or {})},
            tags=dict(tag_values or {}),
            experiment_id=run.info.experiment_id,
        )
        _complete_model(client, run, model, save)
    except BaseException as error:
        with closing.limit_retries(error), suppress(MlflowException):
            _fail_models(client, run)
        raise
    if mlflow.get_tracking_uri().startswith(SERVERS):
        _remove_models(client, run)
    return str(model.model_uri)


def _complete_model(
    client: MlflowClient, run: Run, model: LoggedModel, save: Callable[..., None]
) -> None:
    """Link a newly created model to its run, write its files and mark it READY."""
    number = model.model_id
    _link(client, run, number)
    mlmodel = Model(model.artifact_location, run.info.run_id, model_uuid=number, model_id=number)
    with TemporaryDirectory() as folder:
        save(path=f"{folder}/model", mlflow_model=mlmodel)
        client.log_model_artifacts(number, f"{folder}/model")
    client.finalize_logged_model(number, LoggedModelStatus.READY)


def _link(client: MlflowClient, run: Run, model_id: str) -> None:
    """Link a model to its run, and the run's metrics so far (those of step 0) to the model."""
    run_id = run.info.run_id
    try:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    except MlflowException:
        if model_id not in _linked(client, run_id):
            raise
    points = [
        point for name in run.data.metrics for point in client.get_metric_history(run_id, name)
    ]
    of_model = [
        Metric(point.key, point.value, point.timestamp, point.step, model_id, run_id=run_id)
        for point in points
        if point.step == 0
    ]
    client.log_batch(run_id, of_model)


def _linked(client: MlflowClient, run_id: str) -> set[str]:
    outputs = client.get_run(run_id).outputs
    return {model.model_id for model in outputs.model_outputs} if outputs else set()


def _unfinished(client: MlflowClient, run: Run) -> list[str]:
    """Return the ids of a run's models whose files are missing or incomplete."""
    of_run = equals("source_run_id", run.info.run_id)
    models = client.search_logged_models([run.info.experiment_id], of_run)
    return [model.model_id for model in models if model.status == LoggedModelStatus.PENDING]


def _remove_models(client: MlflowClient, run: Run) -> None:
    """Delete a run's duplicate models: the incomplete ones, as its own are complete by now."""
    for model_id in _unfinished(client, run):
        with suppress(MlflowException):  # a duplicate that stays does no harm
            client.delete_logged_model(model_id)


def _fail_models(client: MlflowClient, run: Run) -> None:
    """Mark a run's incomplete models as FAILED, so that MLflow no longer waits for them."""
    for model_id in _unfinished(client, run):
        client.finalize_logged_model(model_id, LoggedModelStatus.FAILED)


def keep_first_version(client: MlflowClient, name: str, versions: Sequence[str]) -> str:
    """Delete all but the first of these versions of a registered model; return the one kept.

    A user who may create versions may not be allowed to delete them: then the last is kept, since
    a look-up by digest finds the newest.
    """
    first, *others = sorted(versions, key=int)
    for version in reversed(others):
        try:
            client.delete_model_version(name, version)
        except MlflowException as error:
            if error.error_code == "PERMISSION_DENIED":
                return max(versions, key=int)
            if not refusals.is_missing(error):  # already deleted: that response was lost, too
                raise
    return first
