"""Models in MLflow: saving them as files without pickle, and loading them."""

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, Schema

from storage import StorageError
from storage.data.files import one_line
from storage.repro.checkout import ROOT
from storage.tracking.served_model import CODE, MANIFEST

SERVED = Path(__file__).with_name("served_model.py")
# what loading and predicting imports, pinned to the versions that trained
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "skops", "xgboost")


def log(
    files: Mapping[str, bytes],
    *,
    name: str,
    package: str,
    modules: tuple[str, ...],
    columns: Mapping[str, bool],
    example: pd.DataFrame,
) -> str:
    """Log a model of plain files on the active run.

    Args:
        files: name -> bytes, what the package's `model` module rebuilds the model from.
        name: of the logged model.
        package: folder of this checkout that holds the code, e.g. taxi.
        modules: the modules of it that travel with the model.
        columns: input columns -> whether each is required.
        example: a few rows of input.
    Returns:
        The model's URI, models:/m-...
    """
    with TemporaryDirectory() as folder:
        write(Path(folder), files, package=package, modules=modules)
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(SERVED),
            artifacts={"model": folder},
            signature=signature(columns),
            input_example=example,
            pip_requirements=pins(),
        )
    return str(logged.model_uri)


def write(
    folder: Path, files: Mapping[str, bytes], *, package: str, modules: tuple[str, ...]
) -> None:
    """Write a model's files, its code and a manifest of their hashes into a folder."""
    code = {f"{CODE}/{name}.py": (ROOT / package / f"{name}.py").read_bytes() for name in modules}
    contents = {**files, **code}
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def signature(columns: Mapping[str, bool]) -> ModelSignature:
    """Describe the input: any type per column, for ids and times come as numbers or text."""
    inputs = [ColSpec(AnyType(), column, required=must) for column, must in columns.items()]
    return ModelSignature(Schema(inputs), Schema([ColSpec("double")]))


def pins() -> list[str]:
    """Pin what a model needs to the versions that run now."""
    return [f"{name}=={version(name)}" for name in REQUIREMENTS]


def load(uri: str) -> Any:
    """Load a model as it will be served.

    Raises:
        StorageError: there is none at this URI, or its files are gone or are not what was saved.
    """
    try:
        return mlflow.pyfunc.load_model(uri)
    except (MlflowException, OSError) as error:
        raise StorageError(f"Cannot load model {uri}: {one_line(error)}.") from error


def digest(model: Any, uri: str) -> str:
    """Identify a loaded model by all its bytes; by its URI where it does not tell them."""
    found = getattr(_served(model), "sha256", None)
    return str(found or hashlib.sha256(uri.encode()).hexdigest())


def profile(model: Any) -> bytes:
    """Give the training profile that a loaded model stores; empty where it stores none."""
    return bytes(getattr(_served(model), "profile", b""))


def required_columns(model: Any) -> set[str]:
    """Name the columns that a loaded model must be given; none where it does not say."""
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
        raise StorageError(f"Model {uri} refuses these rows: {reason[:300]}.") from error


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
        raise StorageError(f"Model {uri} refuses these rows: {one_line(error)}.") from error


def pin(uri: str) -> str:
    """Replace an alias by the version it points to now, so that a long run keeps one model.

    Raises:
        StorageError: there is no such model or alias.
    """
    found = re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri)
    if not found:
        return uri
    try:
        version = MlflowClient().get_model_version_by_alias(found[1], found[2])
    except MlflowException as error:
        raise StorageError(f"Cannot load model {uri}: {one_line(error)}.") from error
    return f"models:/{found[1]}/{version.version}"


def version_tags(uri: str) -> dict[str, str]:
    """Read the tags of the version that a pinned URI names; none where it names no version."""
    found = re.fullmatch(r"models:/([^/@]+)/([0-9]+)", uri)
    return dict(MlflowClient().get_model_version(found[1], found[2]).tags) if found else {}


def _served(model: Any) -> Any:
    try:
        return model.unwrap_python_model()
    except MlflowException:  # a model of another flavour
        return None


def check_name(name: str) -> None:
    """Refuse a name that the registry would not take, before anything is trained for it.

    Raises:
        StorageError: it is empty, or MLflow's URIs could not hold it.
    """
    if not name.strip() or set(name) & set("/:"):
        raise StorageError(
            f"model_name {name!r} cannot be registered. Pass a name without / and :, "
            f"such as -P model_name=nyc-taxi-duration."
        )
