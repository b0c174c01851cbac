"""Models in MLflow: saving them as files without pickle, and loading them."""

import hashlib
import json
import warnings
import weakref
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.types.schema import AnyType, ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.utils.uri import get_databricks_profile_uri_from_artifact_uri
from mlflow.utils.validation import path_not_unique

from storage import StorageError, UserError, one_line
from storage.checkout import ROOT
from storage.tracking import doubles
from storage.tracking.artifacts import is_local
from storage.tracking.query import equals, why_unsearchable
from storage.tracking.served_model import (
    CODE,
    DOOR,
    LOADER,
    MANIFEST,
    damaged,
    read_verified,
)
from storage.tracking.tags import MODEL_SHA256, MODEL_URI, RMSE_TEST
from storage.uris import without_credentials, without_user

MAX_NAME = 256  # characters, in the columns of MLflow's tables
SERVED = Path(__file__).with_name(LOADER)
LOADER_MODULE = "mlflow.pyfunc.loaders.code_model"  # MLflow's, which runs the loader
# what loading and predicting imports, pinned to the versions that trained
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "skops", "xgboost")


def log(
    files: Mapping[str, bytes],
    *,
    name: str,
    package: str,
    modules: tuple[str, ...],
    columns: Mapping[str, bool],
    params: Mapping[str, Any],
    example: pd.DataFrame,
) -> str:
    """Log a model of plain files on the active run.

    Args:
        files: name -> bytes, what the package's `model` module rebuilds the model from.
        name: of the logged model.
        package: folder of this checkout that holds the code, e.g. taxi.
        modules: the modules of it that travel with the model.
        columns: input columns -> whether each is required.
        params: what a request may ask beside its rows -> its default.
        example: a few rows of input.
    Returns:
        The model's URI, models:/m-...
    """
    with TemporaryDirectory() as folder:
        write_files(Path(folder), files, package=package, modules=modules)
        with doubles.one_model():
            logged = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(SERVED),
                artifacts={"model": folder},
                signature=signature(columns, params),
                input_example=example,
                pip_requirements=pins(),
            )
    return str(logged.model_uri)


def write_files(
    folder: Path, files: Mapping[str, bytes], *, package: str, modules: tuple[str, ...]
) -> None:
    """Write a model's files, its code and a manifest of their hashes into a folder."""
    code = {f"{CODE}/{name}.py": (ROOT / package / f"{name}.py").read_bytes() for name in modules}
    code[f"{CODE}/{DOOR}.py"] = SERVED.with_name(f"{DOOR}.py").read_bytes()
    contents = {**files, **code}
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    vouched = contents | {LOADER: SERVED.read_bytes()}  # which log_model puts beside the folder
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in vouched.items()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def signature(columns: Mapping[str, bool], params: Mapping[str, Any]) -> ModelSignature:
    """Describe the input: any type per column, for ids and times come as numbers or text.

    The output is that of a request without params, one number a row: MLflow has no words for
    columns that are there where a request asks for them.

    Args:
        columns: input columns -> whether each is required.
        params: name -> default, a bool, a float, or a list of floats.
    """
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(AnyType(), column, required=must) for column, must in columns.items()
    ]
    outputs = Schema([ColSpec("double")])
    if not params:
        return ModelSignature(Schema(inputs), outputs)
    known = ParamSchema([_param(name, default) for name, default in params.items()])
    return ModelSignature(Schema(inputs), outputs, known)


def _param(name: str, default: Any) -> ParamSpec:
    kind = "boolean" if isinstance(default, bool) else "double"
    return ParamSpec(name, kind, default, shape=(-1,) if isinstance(default, list) else None)


def pins() -> list[str]:
    """Pin what a model needs to the versions that run now."""
    return [f"{name}=={version(name)}" for name in REQUIREMENTS]


def load(uri: str) -> PyFuncModel:
    """Load a model as it will be served.

    Files that are not on this machine are fetched into a folder that goes with the model. Those of
    a registered version are compared with its tag before a line of them is imported.

    Raises:
        StorageError: there is none at this URI, or its files are gone or are not what was saved.
    """
    folder = None
    reference = resolve(uri)
    is_registered = ModelsArtifactRepository.is_models_uri(uri)
    try:
        root = ModelsArtifactRepository.split_models_uri(uri)[0] if is_registered else uri
        if not is_local(get_artifact_repository(root)):
            folder = TemporaryDirectory(prefix="model-")
        here = download_artifacts(reference.uri, dst_path=folder.name if folder else None)
        if sha256 := reference.tags.get(MODEL_SHA256):
            check_files(Path(here), sha256)
        model = mlflow.pyfunc.load_model(here)
    except (MlflowException, OSError, ImportError) as error:
        if folder:
            folder.cleanup()
        raise _cannot_load(uri, error) from error
    if folder:
        weakref.finalize(model, folder.cleanup)  # at the latest when the process ends
    return model


def check_files(folder: Path, sha256: str) -> None:
    """Compare the files of a model with the digest that it was registered with; imports nothing.

    Args:
        folder: of its MLmodel.
        sha256: of its manifest.
    Raises:
        MlflowException: they are others, or MLmodel has MLflow import what the manifest does not
            vouch for.
    """
    about = Model.load(str(folder)).flavors.get("python_function", {})
    path = about.get("artifacts", {}).get("model", {}).get("path", "")
    loader = Path(about.get("model_code_path") or "").name
    imported = [about.get(key) for key in ("loader_module", "code", "data", "python_model")]
    # the manifest vouches for the loader two floors above its folder
    if (loader, imported) != (LOADER, [LOADER_MODULE, None, None, None]) or not is_two_below(path):
        raise damaged("MLmodel is not the one that was saved")
    if read_verified(folder / path).sha256 != sha256:
        raise damaged("they are not those that the version was registered with")


def is_two_below(path: str) -> bool:
    """Whether a path names a folder in a folder of where it starts."""
    parts = Path(path).parts
    return len(parts) == 2 and not {"..", "/"} & set(parts)


def digest(model: Any, uri: str) -> str:
    """Identify a loaded model by all its bytes; by its URI where it does not tell them."""
    sha256 = getattr(_served(model), "sha256", None)
    return str(sha256 or hashlib.sha256(uri.encode()).hexdigest())


def profile(model: Any) -> bytes:
    """Return the training profile that a loaded model stores; empty where it stores none."""
    return bytes(getattr(_served(model), "profile", b""))


def unwrapped(model: Any) -> Any:
    """Return what answers inside a loaded model of this project; None in any other one."""
    return getattr(_served(model), "model", None)


def required_columns(model: Any) -> set[str]:
    """Return the columns that a loaded model must be given; none where it does not say."""
    schema = model.metadata.get_input_schema()
    return set(schema.required_input_names()) if schema else set()


def predict(model: Any, frame: pd.DataFrame, uri: str) -> np.ndarray:
    """Ask a loaded model, as its server would.

    Raises:
        StorageError: it does not take these rows.
    """
    try:
        return np.asarray(model.predict(frame), np.float64)
    except MlflowException as error:
        # MLflow writes all the rows out before it says what is wrong with them
        reason = " ".join(str(error).rpartition("Error: ")[2].split()).rstrip(".")
        raise StorageError(
            f"Model {without_credentials(uri)} refuses these rows: {reason[:300]}."
        ) from error


def predict_typed(model: Any, frame: pd.DataFrame, uri: str) -> np.ndarray:
    """Ask a loaded model about rows whose columns have one type each.

    MLflow's own check of the input looks at every value by itself where a column may hold text or
    numbers, and takes a quarter of the time; the model's check of its rows stays.

    Raises:
        StorageError: it does not take these rows.
    """
    served = _served(model)
    if not hasattr(served, "sha256"):  # not a model of this project
        return predict(model, frame, uri)
    try:
        return np.asarray(served.predict(None, frame), np.float64)
    except MlflowException as error:
        raise StorageError(
            f"Model {without_credentials(uri)} refuses these rows: {one_line(error)}."
        ) from error


def predict_columns(
    model: Any, frame: pd.DataFrame, uri: str, params: Mapping[str, Any]
) -> pd.DataFrame:
    """Ask a loaded model about n rows whose columns have one type each, and for more than minutes.

    Args:
        model: a loaded one.
        frame: n rows.
        uri: of the model, for messages.
        params: what is asked, such as `{"quantiles": [0.1, 0.9]}`.
    Returns:
        n rows: `prediction`, and a column for each thing asked.
    Raises:
        StorageError: it does not take these rows, or has no answer to one of the params.
    """
    served = _served(model)
    is_ours = hasattr(served, "sha256")
    known = {param.name for param in model.metadata.get_params_schema() or () if is_ours}
    if unknown := sorted(set(params) - known):
        raise _refused(uri, f"it was saved before one could ask for {unknown[0]}; train it anew")
    try:
        # MLflow would look at each value by itself, as for `predict_typed`
        return pd.DataFrame(served.predict(None, frame, dict(params)))
    except MlflowException as error:
        raise _refused(uri, one_line(error)) from error


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
    try:
        scheme = urlsplit(uri).scheme
    except ValueError as error:
        raise UserError(f"{without_credentials(uri)!r} is no URI: {error}.") from error
    if scheme != "models":
        if not uri.strip():
            raise UserError("The model's URI is empty. Pass models:/<name>@champion, for one.")
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
        raise _cannot_load(uri, error) from error
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


def _cannot_load(uri: str, error: Exception) -> StorageError:
    reason = without_user(one_line(error))
    return StorageError(f"Cannot load model {without_credentials(uri)}: {reason}.")


def _refused(uri: str, reason: str) -> StorageError:
    return StorageError(f"Model {without_credentials(uri)} refuses these rows: {reason}.")


def _served(model: Any) -> Any:
    try:
        return model.unwrap_python_model()
    except MlflowException:  # a model of another flavour
        return None


def check_name(name: str) -> None:
    """Refuse a name that cannot be registered, searched for and served, before any training.

    MLflow itself refuses some of these only when the model is registered, and lets others become
    champion of a name that no URI can load.

    Raises:
        UserError: what is wrong with the name.
    """
    if wrong := _wrong_in(name):
        raise UserError(
            f"model_name {name!r} cannot be registered and served: it {wrong}. "
            "Pass a name without / and :, such as -P model_name=nyc-taxi-duration."
        )


def _wrong_in(name: str) -> str:
    if not name.strip():
        return "is empty"
    if name != name.strip():
        return "begins or ends with a blank"
    if unprintable := [mark for mark in name if not mark.isprintable()]:
        return f"holds {unprintable[0]!r}, which cannot be seen"
    # / and : MLflow refuses; models:/<name>/1 is cut at a ?, and at an @ it takes an alias
    if cut := [mark for mark in name if mark in "/:?@"]:
        return f"holds {cut[0]}"
    if wrong := why_unsearchable(name):
        return wrong
    if path_not_unique(name):  # such as ..
        return "is no name of a file"
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters, and a store holds {MAX_NAME}"
    return ""
