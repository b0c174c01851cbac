"""The file that MLflow runs to load a saved model (models-from-code).

It is self-contained: the package it needs is saved beside the parameters and imported under a name
made from its content, so that another version of it in the same process does not interfere. It is
imported from the verified bytes: no cached bytecode is read or left in the artifact.
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
import yaml
from mlflow import is_tracking_uri_set
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc.model import PythonModel

LOADER = "served_model.py"  # this file, which MLflow puts beside MLmodel
MANIFEST = "manifest.json"  # file -> sha256 of every other file in the folder, and of the loader
CODE = "code"
DOOR = "served_door"  # a module among the code
SERVER = "mlflow.pyfunc.scoring_server"  # its .app loads the model while it is imported
REGISTERED, DATABASE = "registered_model_meta", "mlflow.db"  # MLflow's names
MODEL_SHA256 = "model_sha256"  # tag of a registered version
PROFILE = "profile.json"  # what the training months look like
LIVE_STATE = "NYC_TAXI_LIVE_STATE"  # environment variable: path of the file that `score` writes
REREAD_SECONDS = 30.0


class ServedModel(PythonModel):
    """Raw trips in, minutes out."""

    def load_context(self, context: Any) -> None:
        """Check every byte of the artifact, then load the model from it."""
        folder, is_server = Path(context.artifacts["model"]), f"{SERVER}.app" in sys.modules
        files, self.sha256 = read_verified(folder)
        if is_server:
            check_registered(folder.parents[1], self.sha256)
        self.profile = files.get(PROFILE, b"")
        package = import_package(files)
        try:
            model = importlib.import_module(f"{package}.model")
            self.request_error = model.TripError  # of this copy of the package
            self.model = model.TripModel.from_files(files)
        except (ImportError, LookupError, ValueError) as error:
            raise unloadable_error(error, package) from error
        # must not refer to self: a reference cycle would keep the model's files alive
        read = partial(read_live, self.model, self.sha256, self.request_error)
        self.live_file = WatchedFile(read)
        if is_server:
            openapi = importlib.import_module(f"{package}.openapi")
            door = importlib.import_module(f"{package}.{DOOR}")
            door.guard(sys.modules[SERVER])
            door.set_tcp_nodelay(importlib.import_module("uvicorn").Server)
            taxi = self.model.taxi
            door.patch_openapi(openapi.describe_request(taxi), openapi.describe_as_html(taxi))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray | pd.DataFrame:
        """Predict the minutes of each row, float64 [n]; a frame of n rows if params ask for more.

        Raises:
            MlflowException: a column is missing, or a row or a param is invalid; says which. This
                is the caller's mistake: any other error is the server's and keeps its type.
        """
        asks_live = isinstance(params, dict) and params.get("live")
        state = self.live_file.value() if asks_live else None
        try:
            return self.model.answer(model_input, params, state=state)
        except self.request_error as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def read_live(model: Any, sha256: str, refusal: type[ValueError], content: bytes) -> Any:
    """Parse the live level of a model.

    Raises:
        ValueError: the content is not a live level of this model.
    """
    try:
        return model.read_live(content, sha256)
    except refusal as error:  # here the file is wrong, not a request
        raise ValueError(str(error)) from error


class WatchedFile:
    """The content of a small file that others replace; None if it is missing or invalid.

    Safe for any number of threads: the only state is one reference, replaced atomically.
    """

    def __init__(self, read: Callable[[bytes], Any]) -> None:
        """Watch the file that LIVE_STATE names, if it names one.

        Args:
            read: parses its bytes; raises ValueError with the reason if they are invalid.
        """
        self.read = read
        self.path = os.environ.get(LIVE_STATE, "")
        self._last = FileState(-REREAD_SECONDS, (), None)

    def value(self) -> Any:
        """Return the parsed content of the file, at most REREAD_SECONDS old."""
        last = self._last
        if not self.path or monotonic() - last.at < REREAD_SECONDS:
            return last.value
        self._last = self._read_state(last)
        return self._last.value

    def _read_state(self, last: "FileState") -> "FileState":
        path = Path(self.path)
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == last.stamp:
                return last._replace(at=monotonic())
            return FileState(monotonic(), stamp, self.read(path.read_bytes()))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            if last.reason != reason:
                logging.getLogger(__name__).warning("No live level: %s: %s", self.path, reason)
            return FileState(monotonic(), (), None, reason)


class FileState(NamedTuple):
    """The result of one look at a file."""

    at: float  # seconds of the monotonic clock
    stamp: tuple[int, ...]  # of the file that was read; empty if none was
    value: Any
    reason: str = ""  # why there is no value


class ModelFiles(NamedTuple):
    """The files of a model, each verified to be what was saved."""

    files: dict[str, bytes]  # name -> content
    sha256: str  # of the manifest, which covers all of them


def read_verified(folder: Path) -> ModelFiles:
    """Read the files of a model and check them against its manifest, importing nothing.

    Raises:
        MlflowException: the manifest is invalid or incomplete, or a file is missing or is not what
            was saved.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        manifest = json.loads(content)
        check_manifest(manifest, folder)
        files = {name: place_of(name, folder).read_bytes() for name in manifest}
    except (OSError, ValueError, RecursionError) as error:
        raise damaged_error(f"they cannot be read: {error}") from error
    for name, text in files.items():
        if hashlib.sha256(text).hexdigest() != manifest[name]:
            raise damaged_error(f"{name} is not the one that was saved")
    return ModelFiles(files, hashlib.sha256(content).hexdigest())


def check_manifest(manifest: Any, folder: Path) -> None:
    """Refuse a manifest that is empty, omits a file of its folder, or lists one outside.

    Raises:
        ValueError: says what is wrong.
    """
    if not isinstance(manifest, dict) or not manifest:
        raise ValueError("the manifest lists none")
    if outside := [name for name in manifest if {"..", "/"} & set(Path(name).parts)]:
        raise ValueError(f"the manifest lists {outside[0]!r}, which is outside")
    paths = (path for path in folder.rglob("[!.]*") if path.is_file())
    names = {path.relative_to(folder).as_posix() for path in paths} - {MANIFEST}
    if unlisted := sorted(name for name in names - set(manifest) if "__pycache__" not in name):
        raise ValueError(f"the manifest does not list {unlisted[0]}")


def place_of(name: str, folder: Path) -> Path:
    """Return the path of a file that the manifest of a folder lists."""
    return folder.parents[1] / name if name == LOADER else folder / name


def damaged_error(why: str) -> MlflowException:
    """Return the error for a model whose files are not those that were saved."""
    reason = " ".join(why.split())
    return MlflowException.invalid_parameter_value(
        f"The model's files are not whole: {reason}. Fetch the model again."
    )


def unloadable_error(error: Exception, package: str) -> MlflowException:
    """Return the error for a model that cannot be imported: files or packages are missing.

    Args:
        error: what loading raised.
        package: name under which the model's code was imported.
    """
    origin = getattr(error, "name", None) or type(error).__module__
    if isinstance(error, LookupError) or origin.startswith(package):
        lack = "the manifest lists too few of them, or the model was saved with too few"
        return damaged_error(f"{lack}: {error!r}")
    reason = " ".join(str(error).split())[:200]  # xgboost's can fill a page
    return MlflowException.invalid_parameter_value(
        f"The model's packages cannot be used here: {reason}. Its requirements.txt names them."
    )


def check_registered(root: Path, sha256: str) -> None:
    """Check the model that a server loads against the digest tag of its registered version.

    Args:
        root: folder of MLmodel, where MLflow notes the version.
        sha256: of the manifest.
    Raises:
        MlflowException: the version was registered with other files.
    """
    if not ((root / REGISTERED).is_file() and (is_tracking_uri_set() or Path(DATABASE).is_file())):
        return  # no version, or no registry to ask, as in a container
    version = yaml.safe_load((root / REGISTERED).read_text())
    name, number = version["model_name"], str(version["model_version"])
    try:
        found = mlflow.MlflowClient().get_model_version(name, number)
    except MlflowException as error:
        logging.getLogger(__name__).warning("Not compared with the registry: %s", error)
        return
    tag = found.tags.get(MODEL_SHA256, sha256)
    # the note may be stale: from another model that had this version's name and number
    if found.source == f"models:/{Model.load(str(root)).model_id}" and tag != sha256:
        raise damaged_error(f"version {number} of {name!r} was registered with other ones")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one package from source texts in memory."""

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
    """Make the package among a model's files importable; return its name."""
    code = {name: files[name] for name in sorted(files) if name.startswith(f"{CODE}/")}
    package = f"served_{hashlib.sha256(b''.join(code.values())).hexdigest()[:16]}"
    if package not in sys.modules:
        names = {name: f"{package}.{Path(name).stem}" for name in code}
        sources = {names[name].removesuffix(".__init__"): code[name] for name in code}
        sys.meta_path.append(_Finder(sources))
    return package


mlflow.models.set_model(ServedModel())
