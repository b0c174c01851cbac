"""A model's URI: the version that it means now, and the measured version that it stands for."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.utils.uri import get_databricks_profile_uri_from_artifact_uri

from storage import StorageError, one_line
from storage.tracking import refusals
from storage.tracking.names import check_model_uri
from storage.tracking.query import equals, why_unsearchable
from storage.tracking.tags import MODEL_SHA256, MODEL_URI, RMSE_TEST
from storage.uris import without_credentials, without_user

NO_FOLDER = "No such artifact: ''"  # what MLflow says where the whole of a model is gone


class ModelReference(NamedTuple):
    """A model that a long run can hold on to, whatever happens to aliases meanwhile."""

    uri: str  # what to load; of a registered model always a version
    name: str  # of the registered model; empty where the URI names none
    version: str  # of the registered model; empty as name is
    tags: Mapping[str, str]  # of that version


def resolve(uri: str) -> ModelReference:
    """Replace what a URI of a registered model points to by the version that this is now.

    An alias, `latest` and a stage move on; a version, a logged model (models:/m-...), a run's model
    (runs:/...) and files anywhere (a path, file:, s3:, mlflow-artifacts:) stay as they are.

    Raises:
        StorageError: no URI of a model, or there is no such version, alias or stage.
    """
    check_model_uri(uri)
    if not ModelsArtifactRepository.is_models_uri(uri):
        return ModelReference(uri, "", "", {})
    root, path = ModelsArtifactRepository.split_models_uri(uri)
    try:
        with warnings.catch_warnings():  # stages are deprecated, and still there
            warnings.simplefilter("ignore", FutureWarning)
            registry = _registry_of(uri)
            name, *numbers = get_model_name_and_version(registry.client, root)
            if not numbers:  # models:/m-...
                return ModelReference(uri, "", "", {})
            number = str(numbers[0])
            tags = registry.client.get_model_version(name, number).tags
    except MlflowException as error:
        raise _no_alias(uri, root) or cannot_load(uri, error) from error
    pinned = f"{registry.prefix}{name}/{number}"
    if path:  # something inside the version's folder, which is another model
        return ModelReference(f"{pinned}/{path}", "", "", {})
    return ModelReference(pinned, name, number, dict(tags))


def reference_tags(reference: ModelReference, digest: str) -> dict[str, str]:
    """Read what is known of a model: the tags of a registered version that holds this very model.

    That is the version that the reference names, if it has been measured. Else it is the newest
    measured one with the same bytes, or registered from the same URI: a model that is named by its
    id, its run or its folder was measured all the same.

    Args:
        reference: of the model.
        digest: of the loaded model.
    """
    if RMSE_TEST in reference.tags:
        return dict(reference.tags)
    client = MlflowClient()
    by_uri = () if why_unsearchable(reference.uri) else (f"tags.{MODEL_URI}", "source_path")
    for wanted in (
        equals(f"tags.{MODEL_SHA256}", digest),
        *(equals(field, reference.uri) for field in by_uri),
    ):
        measured = [
            version for version in client.search_model_versions(wanted) if RMSE_TEST in version.tags
        ]
        if measured:
            newest = max(measured, key=lambda version: int(version.creation_timestamp))
            return dict(newest.tags)
    return dict(reference.tags)


def logged_tags(uri: str) -> dict[str, str]:
    """Read the tags of a logged model, models:/m-...; none where it is none, or is gone."""
    model_id = uri.rpartition("/")[2]
    if not model_id:  # of a version that somebody has registered by hand
        return {}
    try:
        return dict(MlflowClient().get_logged_model(model_id).tags)
    except MlflowException as error:
        if not refusals.is_missing(error):
            raise
        return {}


def logged_model(client: MlflowClient, model_id: str, run_id: str) -> LoggedModel:
    """Look up a model that a run has logged.

    Raises:
        StorageError: it was deleted since.
    """
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if not refusals.is_missing(error):
            raise
        raise StorageError(
            f"Model {model_id} of run {run_id} was deleted since. Run the pipeline again."
        ) from error


class _Registry(NamedTuple):
    client: MlflowClient
    prefix: str  # of a URI that names a model of this registry


def _registry_of(uri: str) -> _Registry:
    """Open the registry that a URI of a registered model names: this one, or one of Databricks."""
    host = urlsplit(uri).netloc
    if not host:
        return _Registry(MlflowClient(), "models:/")
    profile = get_databricks_profile_uri_from_artifact_uri(uri)
    if not profile:  # MLflow would look the name up in this registry all the same
        raise StorageError(
            f"Cannot load model {without_credentials(uri)}: MLflow reaches no registry this way. "
            "Set MLFLOW_REGISTRY_URI, and pass models:/<name>/<version>."
        )
    return _Registry(MlflowClient(registry_uri=profile), f"models://{host}/")


def _no_alias(uri: str, root: str) -> StorageError | None:
    """Say that a model lacks the alias, and which ones it has; None where that is not so."""
    name, mark, alias = root.removeprefix("models:/").partition("@")
    if not mark or name.startswith("/"):  # of a registry of Databricks
        return None
    try:
        aliases = MlflowClient().get_registered_model(name).aliases
    except MlflowException:  # which has been told already
        return None
    if alias in aliases:
        return None
    there = ", ".join(f"{other} is version {number}" for other, number in aliases.items())
    return StorageError(
        f"Cannot load model {without_credentials(uri)}: no version of {name} has the alias {alias} "
        f"({there or 'none has any'}). Pass models:/{name}/<version>, or promote one with "
        f"-e register."
    )


def cannot_load(uri: str, error: Exception) -> StorageError:
    """Say in one line why a model cannot be loaded."""
    reason = refusals.explain_refusal(error) or f"{without_user(one_line(error))}."
    if NO_FOLDER in reason:
        reason = "its files are lost. Import an export of its pipeline again, or train it again."
    return StorageError(f"Cannot load model {without_credentials(uri)}: {reason}")
