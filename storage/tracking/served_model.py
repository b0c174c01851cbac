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
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from time import monotonic
from types import CodeType
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

MANIFEST = "manifest.json"  # file -> sha256 of every other file in the folder
CODE = "code"
DOOR = "served_door"  # a module among the code
SERVER = "mlflow.pyfunc.scoring_server"
PROFILE = "profile.json"  # what the months it was trained on look like
LIVE_STATE = "NYC_TAXI_LIVE_STATE"  # variable: the path of the file that `score` keeps
LOOK_SECONDS = 30.0


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
        model = importlib.import_module(f"{package}.model")
        self.request_error = model.TripError  # of this very copy of the package
        self.model = model.TripModel.from_files(files)
        # nothing that refers to this model itself, or its files would outlive it
        read = partial(read_live, self.model, self.sha256, self.request_error)
        self.live_file = WatchedFile(read)
        if f"{SERVER}.app" in sys.modules:  # it loads its model while it is imported
            importlib.import_module(f"{package}.{DOOR}").guard(sys.modules[SERVER])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray | pd.DataFrame:
        """Predict the minutes of each row, float64 [n]; a frame of n rows where params ask more.

        Raises:
            MlflowException: a column is missing or a row or a param cannot be judged, which is the
                caller's mistake; says which. Whatever else goes wrong is the server's and keeps
                its type.
        """
        asks_live = isinstance(params, dict) and params.get("live")
        state = self.live_file.value() if asks_live else None
        try:
            return self.model.answer(model_input, params, state=state)
        except self.request_error as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def read_live(model: Any, sha256: str, refusal: type[ValueError], content: bytes) -> Any:
    """Read the level of a model.

    Raises:
        ValueError: the content is no level of it.
    """
    try:
        return model.read_live(content, sha256)
    except refusal as error:  # here the file is wrong, and no request
        raise ValueError(str(error)) from error


class WatchedFile:
    """What a small file says that others replace; without one, or with a bad one, None.

    Any number of threads ask: all that changes is one reference, which is replaced as a whole.
    """

    def __init__(self, read: Callable[[bytes], Any]) -> None:
        """Watch the file that LIVE_STATE names, if it names one.

        Args:
            read: makes something of its bytes; a ValueError says why they cannot be used.
        """
        self.read = read
        self.path = os.environ.get(LIVE_STATE, "")
        self._last = Look(-LOOK_SECONDS, (), None)

    def value(self) -> Any:
        """Return what the file said when it was last looked at, LOOK_SECONDS ago at most."""
        last = self._last
        if not self.path or monotonic() - last.at < LOOK_SECONDS:
            return last.value
        self._last = self._look(last)
        return self._last.value

    def _look(self, last: "Look") -> "Look":
        path = Path(self.path)
        try:
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
            if stamp == last.stamp:
                return last._replace(at=monotonic())
            return Look(monotonic(), stamp, self.read(path.read_bytes()))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            if last.reason != reason:
                logging.getLogger(__name__).warning("No live level: %s: %s", self.path, reason)
            return Look(monotonic(), (), None, reason)


class Look(NamedTuple):
    """What a look at a file came to."""

    at: float  # seconds of the monotonic clock
    stamp: tuple[int, ...]  # of the file that was read; empty where none was
    value: Any
    reason: str = ""  # why there is none


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


def import_package(files: dict[str, bytes]) -> str:
    """Make the package that lies among a model's files importable; returns its name."""
    code = {name: files[name] for name in sorted(files) if name.startswith(f"{CODE}/")}
    package = f"served_{hashlib.sha256(b''.join(code.values())).hexdigest()[:16]}"
    if package not in sys.modules:
        names = {name: f"{package}.{Path(name).stem}" for name in code}
        sources = {names[name].removesuffix(".__init__"): code[name] for name in code}
        sys.meta_path.append(_Finder(sources))
    return package


mlflow.models.set_model(ServedModel())
