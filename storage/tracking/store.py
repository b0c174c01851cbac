"""The store that MLflow is pointed at: it answers, it exists, it is one place for all steps.

`python -m storage.tracking.store` makes it where it is missing, and says where it is.
"""

import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from storage import StorageError, StoreGoneError
from storage.uris import without_credentials

SERVER_TIMEOUT_S = 5
SQLITE = "sqlite:///"


def prepare_store() -> None:
    """Make sure that the store can be used, before anything is written to it.

    Raises:
        StorageError: no server answers, or a relative store is not the one `mlflow run` wrote to.
    """
    uri = mlflow.get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        _ask_server(uri)
    elif path := sqlite_path(uri):
        _make_once(path, uri)


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an sqlite store, None for any other store."""
    if not uri.startswith(SQLITE):
        return None
    # MLflow writes %20 for a space, and SQLAlchemy reads it so
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0]))


def name_plainly() -> None:
    """Name an sqlite store by the path that it has, where MLflow writes my%20work for my work.

    MLflow finds the file by either name, but makes an empty folder of the name that it is given.
    """
    uri = mlflow.get_tracking_uri()
    path, given = sqlite_path(uri), Path(uri.removeprefix(SQLITE))
    if path in (None, given) or sqlite_path(f"{SQLITE}{path}") != path or "?" in uri:
        return
    with suppress(OSError):  # it holds something, or is not there
        given.parent.rmdir()
    mlflow.set_tracking_uri(f"{SQLITE}{path}")


def exists() -> bool:
    """Whether there is a store; makes none."""
    path = sqlite_path(mlflow.get_tracking_uri())
    return path is None or _has_tables(path)


@contextmanager
def gone_as(hint: str | Callable[[], str]) -> Iterator[None]:
    """Turn "no server answers", after all of MLflow's retries, into one line.

    Args:
        hint: how to go on; a function is only asked when the server is gone.
    Raises:
        StoreGoneError: nobody answers any more.
    """
    try:
        yield
    except MlflowException as error:
        if not is_gone(error):
            raise
        uri = without_credentials(mlflow.get_tracking_uri())
        raise StoreGoneError(
            f"The MLflow server at {uri} went away and did not come back. "
            f"{hint if isinstance(hint, str) else hint()}"
        ) from error


def is_gone(error: MlflowException) -> bool:
    """Whether a call failed because no server answered, after all of MLflow's retries."""
    return isinstance(error.__context__, requests.RequestException)


def _ask_server(uri: str) -> None:
    """Ask for a sign of life, once, before MLflow's minutes of retries."""
    try:
        requests.get(f"{uri}/health", timeout=SERVER_TIMEOUT_S)
    except requests.RequestException as error:
        raise StorageError(
            f"No MLflow server answers at {without_credentials(uri)} "
            f"({type(error).__name__}). Start it, or set MLFLOW_TRACKING_URI."
        ) from error


def _make_once(path: Path, uri: str) -> None:
    """Let one process make the tables of a new store while the others wait: two would crash."""
    here, mistaken = str(Path.cwd()), "%[0-9a-fA-F]{2}"  # decoded where artifacts are written
    if re.search(mistaken if path.exists() else f"{mistaken}|'", here):  # quoted in new tables
        raise StorageError(
            f"MLflow mistakes the folder {here} for another, because of an apostrophe or a percent "
            f"sign in its path. Move the checkout to a folder without."
        )
    if "MLFLOW_RUN_ID" in os.environ and not path.exists():
        # `mlflow run` has written its run to the file of this name in its own folder
        raise StorageError(
            f"The store {uri} is seen from {Path.cwd()}, where it is not. Set MLFLOW_TRACKING_URI "
            f"to an absolute one: {SQLITE}/<folder>/{path.name}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, fcntl.LOCK_SH):
            if _has_tables(path):
                return
        with _locked(path, fcntl.LOCK_EX):
            MlflowClient().search_experiments(max_results=1)
    except OSError as error:
        raise StorageError(
            f"The store {uri} cannot be made: {error.strerror}. Set MLFLOW_TRACKING_URI to a place "
            f"that you can write to."
        ) from error


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, kind)  # closing the file lets go, and so does the process' death
        yield


def _has_tables(path: Path) -> bool:
    if not path.is_file():
        return False
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
        table = store.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
        return table.fetchone() is not None


if __name__ == "__main__":
    prepare_store()
    print(f"The store is {without_credentials(mlflow.get_tracking_uri())}")
