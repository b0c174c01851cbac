"""Models in MLflow: saving them as files without pickle, and loading them."""

import hashlib
import json
import re
import weakref
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.types.schema import AnyType, ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

from storage import StorageError, one_line
from storage.checkout import ROOT
from storage.tracking import duplicates, refusals
from storage.tracking.artifacts import is_local
from storage.tracking.model_references import loading_error, resolve
from storage.tracking.runs import active_info
from storage.tracking.served_model import (
    CODE,
    DOOR,
    LOADER,
    MANIFEST,
    damaged_error,
    read_verified,
)
from storage.tracking.tags import MODEL_SHA256
from storage.uris import without_credentials

FORBIDDEN_IN_NAME = re.compile("[/:.%\"']")  # what MLflow refuses in the name of a logged model
MAX_SHOWN = 500  # characters of a parameter
LOADER_FILE = Path(__file__).with_name(LOADER)
LOADER_MODULE = "mlflow.pyfunc.loaders.code_model"  # MLflow's, which runs the loader
# packages that loading and predicting import, pinned to the versions that trained
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
    fitted_with: Mapping[str, Any] | None = None,
    tag_values: Mapping[str, str] | None = None,
) -> str:
    """Log a model of plain files on the active run.

    Args:
        files: name -> bytes, from which the package's `model` module rebuilds the model.
        name: the logged model's name; characters that MLflow refuses become _.
        package: folder of this checkout that holds the code, e.g. taxi.
        modules: the package's modules to save with the model.
        columns: input columns -> whether each is required.
        params: what a request may ask for besides its rows -> the default.
        example: a few rows of input.
        fitted_with: parameter -> value, shown on MLflow's page of the model.
        tag_values: the model's tags.
    Returns:
        The model's URI, models:/m-...
    """
    with TemporaryDirectory() as folder:
        write_files(Path(folder), files, package=package, modules=modules)
        save = partial(
            mlflow.pyfunc.save_model,
            python_model=str(LOADER_FILE),
            artifacts={"model": folder},
            signature=signature(columns, params),
            input_example=example,
            pip_requirements=pinned_requirements(),
        )
        shown = {key: str(value)[:MAX_SHOWN] for key, value in (fitted_with or {}).items()}
        run_id, safe = active_info().run_id, FORBIDDEN_IN_NAME.sub("_", name)
        return duplicates.log_model_once(
            run_id, safe, save, params=shown, tag_values=tag_values or {}
        )


def write_files(
    folder: Path, files: Mapping[str, bytes], *, package: str, modules: tuple[str, ...]
) -> None:
    """Write a model's files, its code and a manifest of their hashes into a folder."""
    code = {f"{CODE}/{name}.py": (ROOT / package / f"{name}.py").read_bytes() for name in modules}
    code[f"{CODE}/{DOOR}.py"] = LOADER_FILE.with_name(f"{DOOR}.py").read_bytes()
    contents = {**files, **code}
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    listed = contents | {LOADER: LOADER_FILE.read_bytes()}  # log_model puts it beside the folder
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in listed.items()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def signature(columns: Mapping[str, bool], params: Mapping[str, Any]) -> ModelSignature:
    """Describe the input and the output of a model.

    A column may have any type, as ids and times come as numbers or text. The output is that of a
    request without params, one number a row: MLflow cannot describe columns that are only there if
    a request asks for them.

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


def pinned_requirements() -> list[str]:
    """Pin the requirements of a model to the installed versions."""
    return [f"{name}=={version(name)}" for name in REQUIREMENTS]


def load(uri: str) -> PyFuncModel:
    """Load a model as a server would.

    Remote files are downloaded into a folder that is removed together with the model. The files of
    a registered version are checked against its digest tag before any of them is imported.

    Raises:
        StorageError: there is no model at this URI, or its files are missing or were changed.
    """
    folder = None
    reference = resolve(uri)
    is_registered = ModelsArtifactRepository.is_models_uri(uri)
    try:
        root = ModelsArtifactRepository.split_models_uri(uri)[0] if is_registered else uri
        if not is_local(get_artifact_repository(root)):
            folder = TemporaryDirectory(prefix="model-")
        here = download_artifacts(reference.uri, dst_path=folder.name if folder else None)
        read_flavor(Path(here))  # MLflow does not check that it is a model
        if sha256 := reference.tags.get(MODEL_SHA256):
            check_files(Path(here), sha256)
        model = mlflow.pyfunc.load_model(here)
    except (MlflowException, OSError, ImportError) as error:
        if folder:
            folder.cleanup()
        raise loading_error(uri, error) from error
    # a reference cycle keeps the model from being freed at exit: once xgboost's module is gone,
    # freeing a booster of a model of 0.1.0 prints a traceback
    vars(model)["itself"] = model
    if folder:
        weakref.finalize(model, folder.cleanup)  # at the latest when the process ends
    return model


def check_files(folder: Path, sha256: str) -> None:
    """Check the files of a model against the digest it was registered with, importing nothing.

    Args:
        folder: the one that holds MLmodel.
        sha256: of its manifest.
    Raises:
        MlflowException: the files differ, or MLmodel makes MLflow import what the manifest does
            not cover.
    """
    flavor = read_flavor(folder)
    artifacts = flavor.get("artifacts", {})
    path = artifacts["model"].get("path", "") if "model" in artifacts else ""
    loader = Path(flavor.get("model_code_path") or "").name
    imported = [flavor.get(key) for key in ("loader_module", "code", "data", "python_model")]
    # the manifest covers the loader, which is two levels above the manifest's folder
    is_own = (loader, imported) == (LOADER, [LOADER_MODULE, None, None, None])
    if not (is_own and is_two_levels_down(path)):
        raise damaged_error("MLmodel is not the one that was saved")
    if read_verified(folder / path).sha256 != sha256:
        raise damaged_error("they are not those that the version was registered with")


def read_flavor(folder: Path) -> dict[str, Any]:
    """Read the pyfunc flavour from a model's MLmodel; only empty `artifacts` if it has none.

    Raises:
        MlflowException: there is no MLmodel, or it is malformed.
    """
    try:
        flavor = dict(Model.load(str(folder)).flavors.get("python_function", {}))
        parts = dict(flavor.get("artifacts", {}))
        return flavor | {"artifacts": {name: dict(part) for name, part in parts.items()}}
    except (AttributeError, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        raise damaged_error("MLmodel is no description of a model") from error


def is_two_levels_down(path: str) -> bool:
    """Whether a relative path leads exactly two levels down."""
    parts = Path(path).parts
    return len(parts) == 2 and not {"..", "/"} & set(parts)


def digest(model: Any, uri: str) -> str:
    """Return the digest of a loaded model's files; that of its URI if the model has none."""
    sha256 = getattr(_served(model), "sha256", None)
    return str(sha256 or hashlib.sha256(uri.encode()).hexdigest())


def profile(model: Any) -> bytes:
    """Return the training profile that a loaded model stores; empty if it stores none."""
    return bytes(getattr(_served(model), "profile", b""))


def unwrapped(model: Any) -> Any:
    """Return the object that predicts in a loaded model of this project; None for any other."""
    return getattr(_served(model), "model", None)


def has_files(uri: str) -> bool:
    """Whether any file of a saved model is left: folders of a checkout get lost."""
    try:
        return bool(list_artifacts(uri))
    except MlflowException as error:
        if not refusals.is_missing(error):
            raise
        return False


def required_columns(model: Any) -> set[str]:
    """Return the input columns that a loaded model requires; empty if it declares none."""
    schema = model.metadata.get_input_schema()
    return set(schema.required_input_names()) if schema else set()


def predict(model: Any, frame: pd.DataFrame, uri: str) -> np.ndarray:
    """Predict n rows with a loaded model, as its server would: float64 [n].

    Raises:
        StorageError: the model refuses these rows.
    """
    try:
        return np.asarray(model.predict(frame), np.float64)
    except MlflowException as error:
        # MLflow's message lists all rows before it says what is wrong with them
        reason = " ".join(str(error).rpartition("Error: ")[2].split()).rstrip(".")
        raise _refused(uri, reason[:300]) from error


def predict_typed(model: Any, frame: pd.DataFrame, uri: str) -> np.ndarray:
    """Predict n rows whose columns have one type each, without MLflow's input check: float64 [n].

    MLflow checks every value by itself if a column may hold text or numbers, which takes a quarter
    of the time. The model still checks its rows.

    Raises:
        StorageError: the model refuses these rows.
    """
    served = _served(model)
    if not hasattr(served, "sha256"):  # not a model of this project
        return predict(model, frame, uri)
    try:
        return np.asarray(served.predict(None, frame), np.float64)
    except MlflowException as error:
        raise _refused(uri, one_line(error)) from error


def predict_columns(
    model: Any, frame: pd.DataFrame, uri: str, params: Mapping[str, Any]
) -> pd.DataFrame:
    """Predict n rows whose columns have one type each, with further columns beside the minutes.

    Args:
        model: a loaded one.
        frame: n rows.
        uri: of the model, for messages.
        params: what to ask for, such as `{"quantiles": [0.1, 0.9]}`.
    Returns:
        n rows: `prediction`, and a column for each thing asked for.
    Raises:
        StorageError: the model refuses these rows, or does not know one of the params.
    """
    served = _served(model)
    is_ours = hasattr(served, "sha256")
    known = {param.name for param in model.metadata.get_params_schema() or () if is_ours}
    if unknown := sorted(set(params) - known):
        raise _refused(uri, f"it was saved before one could ask for {unknown[0]}; train it again")
    try:
        # without MLflow's check of every value, as in `predict_typed`
        return pd.DataFrame(served.predict(None, frame, dict(params)))
    except MlflowException as error:
        raise _refused(uri, one_line(error)) from error


def _refused(uri: str, reason: str) -> StorageError:
    return StorageError(f"Model {without_credentials(uri)} refuses these rows: {reason}.")


def _served(model: Any) -> Any:
    try:
        return model.unwrap_python_model()
    except MlflowException:  # a model of another flavour
        return None
