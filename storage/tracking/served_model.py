"""The file that MLflow runs to load a saved model (models-from-code).

It stands alone: the package it needs lies beside the parameters in the artifact and is imported
under a name made from its own content, so another version of it in the process changes nothing.
It is imported from the bytes that were checked: no cached bytecode is read or left in the artifact.
"""

import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

MANIFEST = "manifest.json"  # file -> sha256 of every other file in the folder
CODE = "code"
PROFILE = "profile.json"  # what the months it was trained on look like


class ServedModel(PythonModel):
    """Raw trips in, minutes out."""

    def load_context(self, context: Any) -> None:
        """Check every byte of the artifact, then load the model from it."""
        folder = Path(context.artifacts["model"])
        files = read_verified(folder)
        # every other file's hash is in it
        self.sha256 = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        self.profile = files.get(PROFILE, b"")
        package = import_package(files)
        self.request_error = package.TripError  # of this very copy of the package
        self.model = package.TripModel.from_files(files)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> np.ndarray:
        """Predict the minutes of each row, float64 [n].

        Raises:
            MlflowException: a column is missing or a row cannot be judged, which is the caller's
                mistake; says which. Whatever else goes wrong is the server's and keeps its type.
        """
        try:
            return np.asarray(self.model.predict_frame(model_input))
        except self.request_error as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def read_verified(folder: Path) -> dict[str, bytes]:
    """Read the files of a model: name -> bytes.

    Raises:
        MlflowException: a file is missing or is not what was saved.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = {name: (folder / name).read_bytes() for name in manifest}
    except (OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"The model's files cannot be read: {error}. Fetch the model again."
        ) from error
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != manifest[name]:
            raise MlflowException.invalid_parameter_value(
                f"The model's file {name} is not the one that was saved. Fetch the model again."
            )
    return files


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one package from texts in memory."""

    def __init__(self, sources: dict[str, bytes]) -> None:
        self.sources = sources  # full name of a module -> its text

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname not in self.sources:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def is_package(self, fullname: str) -> bool:
        return "." not in fullname

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname].decode()

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.sources[fullname], f"{fullname}.py", "exec", dont_inherit=True)


def import_package(files: dict[str, bytes]) -> Any:
    """Import the module `model` of the package that lies among a model's files."""
    code = {name: files[name] for name in sorted(files) if name.startswith(f"{CODE}/")}
    package = f"served_{hashlib.sha256(b''.join(code.values())).hexdigest()[:16]}"
    if package not in sys.modules:
        names = {name: f"{package}.{Path(name).stem}" for name in code}
        sources = {names[name].removesuffix(".__init__"): code[name] for name in code}
        sys.meta_path.append(_Finder(sources))
    return importlib.import_module(f"{package}.model")


mlflow.models.set_model(ServedModel())
