"""A model's URI: the version it resolves to now, and the measured version with that model."""

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

NO_FOLDER = "No such artifact: ''"  # MLflow's message if all files of a model are gone


class ModelReference(NamedTuple):
    """A fixed reference to a model, for a long run during which aliases may move."""

    uri: str  # what to load; for a registered model always one version
    name: str  # registered model; empty if the URI names none
    version: str  # its number; empty if `name` is
    tags: Mapping[str, str]  # tags of that version


def resolve(uri: str) -> ModelReference:
    """Resolve the URI of a registered model to the version that it means now.

    An alias, `latest` and a stage may move, so they are replaced; a version, a logged model
    (models:/m-...), a run's model (runs:/...) and files anywhere (a path, file:, s3:,
    mlflow-artifacts:) stay as they are.

    Raises:
        StorageError: this is no URI of a model, or there is no such version, alias or stage.
    """
    check_model_uri(uri)
    if not ModelsArtifactRepository.is_models_uri(uri):
        return ModelReference(uri, "", "", {})
    root, path = ModelsArtifactRepository.split_models_uri(uri)
    try:
        with warnings.catch_warnings():  # stages are deprecated, but still work
            warnings.simplefilter("ignore", FutureWarning)
            registry = _registry_of(uri)
            name, *numbers = get_model_name_and_version(registry.client, root)
            if not numbers:  # models:/m-...
                return ModelReference(uri, "", "", {})
            number = str(numbers[0])
            tags = registry.client.get_model_version(name, number).tags
    except MlflowException as error:
        raise _missing_alias_error(uri, root) or loading_error(uri, error) from error
    pinned = f"{registry.prefix}{name}/{number}"
    if path:  # a folder inside the version's, which holds another model
        return ModelReference(f"{pinned}/{path}", "", "", {})
    return ModelReference(pinned, name, number, dict(tags))


def reference_tags(reference: ModelReference, digest: str) -> dict[str, str]:
    """Return the tags of the measured version that holds this very model.

    That is the version that the reference names, if it was measured. Otherwise it is the newest
    measured version with the same digest or, failing that, from the same URI, so that a model named
    by its id, its run or its folder is found, too. If there is none: the reference's own tags.

    Args:
        reference: to the model.
        digest: of the loaded model.
    """
    if RMSE_TEST in reference.tags:
        return dict(reference.tags)
    client = MlflowClient()
    by_uri = () if why_unsearchable(reference.uri) else (f"tags.{MODEL_URI}", "source_path")
    for condition in (
        equals(f"tags.{MODEL_SHA256}", digest),
        *(equals(field, reference.uri) for field in by_uri),
    ):
        measured = [
            version
            for version in client.search_model_versions(condition)
            if RMSE_TEST in version.tags
        ]
        if measured:
            newest = max(measured, key=lambda version: int(version.creation_timestamp))
            return dict(newest.tags)
    return dict(reference.tags)


def logged_tags(uri: str) -> dict[str, str]:
    """Return the tags of a logged model, models:/m-...; empty if there is no such model."""
    model_id = uri.rpartition("/")[2]
    if not model_id:  # a version that somebody registered by hand
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
        StorageError: the model was deleted since.
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
    prefix: str  # what the URIs of its models begin with


def _registry_of(uri: str) -> _Registry:
    """Return the registry that a model's URI names: the configured one, or one of Databricks."""
    host = urlsplit(uri).netloc
    if not host:
        return _Registry(MlflowClient(), "models:/")
    profile = get_databricks_profile_uri_from_artifact_uri(uri)
    if not profile:  # MLflow would silently look the name up in the configured one
        raise StorageError(
            f"Cannot load model {without_credentials(uri)}: MLflow reaches no registry this way. "
            "Set MLFLOW_REGISTRY_URI, and pass models:/<name>/<version>."
        )
    return _Registry(MlflowClient(registry_uri=profile), f"models://{host}/")


def _missing_alias_error(uri: str, root: str) -> StorageError | None:
    """Return the error of a missing alias, with those that exist; None if it is not missing."""
    name, mark, alias = root.removeprefix("models:/").partition("@")
    if not mark or name.startswith("/"):  # in a registry of Databricks
        return None
    try:
        aliases = MlflowClient().get_registered_model(name).aliases
    except MlflowException:  # the caller's own error says so
        return None
    if alias in aliases:
        return None
    existing = ", ".join(f"{other} is version {number}" for other, number in aliases.items())
    return StorageError(
        f"Cannot load model {without_credentials(uri)}: no version of {name} has the alias {alias} "
        f"({existing or 'none has any'}). Pass models:/{name}/<version>, or promote one with "
        f"-e register."
    )


def loading_error(uri: str, error: Exception) -> StorageError:
    """Return the error that says in one line why a model cannot be loaded."""
    reason = refusals.explain_refusal(error) or f"{without_user(one_line(error))}."
    if NO_FOLDER in reason:
        reason = "its files are lost. Import an export of its pipeline again, or train it again."
    return StorageError(f"Cannot load model {without_credentials(uri)}: {reason}")
