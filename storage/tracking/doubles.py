"""What a request made twice, because the answer to the first one was lost on its way.

MLflow's client asks again where no answer comes, and a server that had done its work does it once
more. So whoever makes something on a server looks afterwards whether it is there once.
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
SERVERS = ("http://", "https://")  # a database answers the process itself


def close_runs(run: Run) -> None:
    """Close as KILLED the empty runs that were made together with a new one.

    A request that is repeated says the same of the run, the millisecond of its start included.

    Args:
        run: that is used, with all its tags.
    """
    if not mlflow.get_tracking_uri().startswith(SERVERS):
        return
    client = MlflowClient()
    alike = both(
        f"attributes.start_time = {run.info.start_time}", equals("attributes.status", "RUNNING")
    )
    for other in client.search_runs([run.info.experiment_id], alike):
        if _is_double(other, run):
            stale_runs.close_run(client, other.info.run_id, REASON)


def _is_double(other: Run, run: Run) -> bool:
    # the store makes up a name for a run that was given none
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
    marks: Mapping[str, str] | None = None,
) -> str:
    """Log a model of a run once: it is linked once, and no other is left.

    MLflow's log_model of a flavour does the same, but takes it for a failure that a store refuses
    the second of two links that are the same.

    Args:
        run_id: of the run that learned it.
        name: of the model.
        save: writes it, given path and mlflow_model: save_model of a flavour with the rest bound.
        params: what it was fitted with, beside the run's own.
        marks: its tags.
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
            tags=dict(marks or {}),
            experiment_id=run.info.experiment_id,
        )
        _fill(client, run, model, save)
    except BaseException as error:
        with closing.in_seconds(error), suppress(MlflowException):
            _fail_models(client, run)
        raise
    if mlflow.get_tracking_uri().startswith(SERVERS):
        _remove_models(client, run)
    return str(model.model_uri)


def _fill(client: MlflowClient, run: Run, model: LoggedModel, save: Callable[..., None]) -> None:
    """Write the files of a model that a run has just made."""
    number = model.model_id
    _link(client, run, number)
    about = Model(model.artifact_location, run.info.run_id, model_uuid=number, model_id=number)
    with TemporaryDirectory() as folder:
        save(path=f"{folder}/model", mlflow_model=about)
        client.log_model_artifacts(number, f"{folder}/model")
    client.finalize_logged_model(number, LoggedModelStatus.READY)


def _link(client: MlflowClient, run: Run, model_id: str) -> None:
    """Make a model, and the metrics that its run has by now, known as each other's."""
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
    """List the models of a run that no file was ever written to, or not all: their ids."""
    of_run = equals("source_run_id", run.info.run_id)
    models = client.search_logged_models([run.info.experiment_id], of_run)
    return [model.model_id for model in models if model.status == LoggedModelStatus.PENDING]


def _remove_models(client: MlflowClient, run: Run) -> None:
    """Remove the models that a run has made twice; all that it logs are whole."""
    for model_id in _unfinished(client, run):
        with suppress(MlflowException):  # it does no harm where it stays
            client.delete_logged_model(model_id)


def _fail_models(client: MlflowClient, run: Run) -> None:
    """Call those models of a run failed that did not come whole, and that MLflow waits for."""
    for model_id in _unfinished(client, run):
        client.finalize_logged_model(model_id, LoggedModelStatus.FAILED)


def keep_first(client: MlflowClient, name: str, versions: Sequence[str]) -> str:
    """Delete all of these versions of a registered model but the first; returns what is kept.

    Who may make versions may not always delete them: then the last is kept, which is the one that
    whoever looks for these bytes finds.
    """
    first, *others = sorted(versions, key=int)
    for version in reversed(others):
        try:
            client.delete_model_version(name, version)
        except MlflowException as error:
            if error.error_code == "PERMISSION_DENIED":
                return max(versions, key=int)
            if not refusals.is_missing(error):  # this answer was lost, too
                raise
    return first
