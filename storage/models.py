"""Models in MLflow: saving them as files without pickle, loading, registering."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, Schema

from . import StorageError
from .checkout import ROOT
from .served_model import CODE, MANIFEST

ALIAS = "champion"
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
    """Load a model as it will be served."""
    return mlflow.pyfunc.load_model(uri)


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


def register(
    model_uri: str, name: str, *, tags: Mapping[str, str], description: str
) -> tuple[str, bool]:
    """Make a logged model a version with alias champion; the same model never becomes two.

    Returns:
        The version, and whether it is new.
    Raises:
        StorageError: the registry does not take the name.
    """
    client = MlflowClient()
    try:
        versions = client.search_model_versions(f"name = '{name}'")
        known = [found for found in versions if found.tags.get("model_uri") == model_uri]
        found = known[0] if known else _new_version(client, model_uri, name)
        for key, value in tags.items():
            client.set_model_version_tag(name, found.version, key, value)
        client.update_model_version(name, found.version, description)
        client.set_registered_model_alias(name, ALIAS, found.version)
    except MlflowException as error:
        raise StorageError(f"Cannot register {name!r}: {error.message}") from error
    return str(found.version), not known


def _new_version(client: MlflowClient, model_uri: str, name: str) -> ModelVersion:
    # the tag comes with the version, so that a crash between two calls cannot lose it
    return mlflow.register_model(model_uri, name, tags={"model_uri": model_uri})
