"""The configured store of MLflow: make sure that it exists, answers, and is one for all steps.

`python -m storage.tracking.store` creates it if it is missing, and says where it is.
"""

import configparser
import errno
import fcntl
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.environment_variables import (
    MLFLOW_ALLOW_FILE_STORE,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER,
)
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from storage import StorageError, StoreGoneError, UserError, drivers, one_line
from storage.tracking import refusals, sqlite_file
from storage.uris import without_credentials, without_user

SERVER_TIMEOUT_S, SERVER_RETRIES = 5, 3
BUSY = (429, 502, 503, 504)  # HTTP statuses that may pass within seconds
SQLITE, HTTP = "sqlite:///", ("http://", "https://")
DATABRICKS = ("databricks", "databricks-uc", "uc")
KINDS = ("http", "https", "databricks", *DATABASE_ENGINES)
UNREADABLE_USERS = (
    "MLflow cannot read ~/.mlflow/credentials. Below a line [mlflow] it wants "
    "mlflow_tracking_username=<user> and mlflow_tracking_password=<password>, each % in them "
    "written %%: mend it, or take it away and set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD."
)
UPGRADE_DATABASE = 'mlflow db upgrade "$MLFLOW_TRACKING_URI"'


def prepare_store() -> None:
    """Make sure that the store can be used, before anything is written to it.

    Raises:
        StorageError: it refuses, or a relative path is not the store that `mlflow run` wrote to.
    """
    hide_credentials()
    _check_kind(mlflow.get_tracking_uri())
    uri = mlflow.get_tracking_uri()
    if uri.startswith(HTTP):
        _ask_server(uri)
    elif path := sqlite_path(uri):
        _make_once(path, uri)
    elif _scheme(uri) not in ("", "file"):
        _ask_other(uri)


def hide_credentials() -> None:
    """Move user and password from a server's URI into MLflow's environment variables.

    MLflow prints the URI after each run, and messages and artifact addresses contain it.
    """
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(HTTP) or without_user(uri) == uri:
        return
    user, password = requests.utils.get_auth_from_url(uri)
    if user and password:
        os.environ.update(MLFLOW_TRACKING_USERNAME=user, MLFLOW_TRACKING_PASSWORD=password)
    mlflow.set_tracking_uri(without_user(uri))


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an sqlite store; None for any other store."""
    if not uri.startswith(SQLITE):
        return None
    # MLflow writes %20 for a space, and SQLAlchemy decodes it
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0]))


def unescape_sqlite_uri() -> None:
    """Name an sqlite store by its real path, if MLflow has written my%20work for my work.

    MLflow finds the file by either name, but creates empty folders for the encoded one.
    """
    uri = mlflow.get_tracking_uri()
    path, given = sqlite_path(uri), Path(uri.removeprefix(SQLITE))
    if path is None or path == given or sqlite_path(f"{SQLITE}{path}") != path or "?" in uri:
        return
    with suppress(OSError):  # a folder is not empty, or not there
        for folder in given.parents:
            if folder in path.parents:
                break
            folder.rmdir()
    mlflow.set_tracking_uri(f"{SQLITE}{path}")


def exists() -> bool:
    """Whether there is a store; create no sqlite file, and migrate no database.

    Raises:
        StorageError: it belongs to another version of MLflow, or refuses.
    """
    hide_credentials()
    _check_kind(mlflow.get_tracking_uri())
    uri = mlflow.get_tracking_uri()
    path = sqlite_path(uri)
    if path is None:
        prepare_store()
        return True
    return _has_tables(path)


def open_other(uri: str) -> MlflowClient:
    """Open a store other than the configured one; create no sqlite file, migrate no database.

    Raises:
        StorageError: there is none, or it refuses; the message names tracking_uri as the cause.
    """
    try:
        _check_kind(uri)
        path = sqlite_path(uri)
        if path and not _has_tables(path):
            raise StorageError(f"There is no store at {uri}. Check MLFLOW_TRACKING_URI.")
        if uri.startswith(HTTP):
            _ask_server(uri)
        elif not path and _scheme(uri) not in ("", "file"):
            _ask_other(uri)
    except StorageError as error:
        name = "MLFLOW_TRACKING_URI"
        raise StorageError(str(error).replace(name, "tracking_uri")) from error
    return MlflowClient(uri, uri)


@contextmanager
def loss_as_error(hint: str | Callable[[], str]) -> Iterator[None]:
    """Turn a store's error, after all of MLflow's retries, into a one-line error.

    Args:
        hint: how to go on; a function is called only if the server is gone.
    Raises:
        StoreGoneError: the store no longer answers.
        StorageError: the store, or a disk, refuses.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if refusals.is_unreachable(error):
            uri = without_credentials(mlflow.get_tracking_uri())
            raise StoreGoneError(
                f"The MLflow server at {uri} went away and did not come back. "
                f"{hint if isinstance(hint, str) else hint()}"
            ) from error
        if line := refusals.explain_refusal(error):
            # if the store also refuses to close the run, the first error is what matters
            raise refusals.find_first_error(error) or StorageError(line) from error
        raise


def _scheme(uri: str) -> str:
    is_named = uri in DATABRICKS or re.match(r"[a-z][a-z0-9+.-]*:", uri)
    return uri.partition(":")[0] if is_named else ""


def _check_kind(uri: str) -> None:
    """Refuse a URI that cannot lead to a store."""
    kind = _scheme(uri)
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        problem = f"has no scheme. Set it to http://{uri}"
    elif kind in ("", "file") and not MLFLOW_ALLOW_FILE_STORE.get():
        problem = (
            "is a folder, and MLflow keeps runs in none. Set it to sqlite:////<folder>/mlflow.db"
        )
    elif kind not in ("", "file", "http", "https", *DATABRICKS) and not _is_database(kind):
        problem = f"has a scheme that MLflow has no store for. Use one of {', '.join(KINDS)}"
    elif kind.partition("+")[0] == "sqlite" and _is_in_memory(uri):
        problem = "is in memory, and ends with each step. Set it to sqlite:////<folder>/mlflow.db"
    else:
        return
    raise StorageError(f"MLFLOW_TRACKING_URI {without_credentials(uri)!r} {problem}.")


def _is_in_memory(uri: str) -> bool:
    """Whether sqlite would keep this database in memory only."""
    place, _, query = uri.partition("://")[2].partition("?")
    return place in ("", "/") or ":memory:" in place or "mode=memory" in query


def _is_database(kind: str) -> bool:
    return kind.partition("+")[0] in DATABASE_ENGINES


def _ask_server(uri: str) -> None:
    """Send a request that any MLflow server answers, with fewer retries than MLflow makes.

    A server's Retry-After may ask for hours, which MLflow would wait before each retry: here and in
    child steps it keeps to its own pauses, which add up to minutes.
    """
    os.environ.setdefault(MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER.name, "false")
    retries = min(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), SERVER_RETRIES)
    try:
        answer = _ask(uri, 0)
        if answer.status_code in BUSY and retries:
            answer = _ask(uri, retries)
    except (configparser.Error, UnicodeDecodeError) as error:  # their messages contain the password
        raise StorageError(UNREADABLE_USERS) from error
    except MlflowException as error:
        reason = type(error.__cause__ or error.__context__ or error).__name__
        raise StorageError(
            f"No MLflow server answers at {without_credentials(uri)} ({reason}). Start it, or set "
            f"MLFLOW_TRACKING_URI."
        ) from error
    if refusal := refusals.explain_answer(answer):
        raise StorageError(f"The MLflow server at {without_credentials(uri)} {refusal}")


def _ask(uri: str, retries: int) -> requests.Response:
    return http_request(
        get_default_host_creds(uri),
        "/api/2.0/mlflow/experiments/search",
        "POST",
        json={"max_results": 1},
        max_retries=retries,
        backoff_factor=1,
        timeout=SERVER_TIMEOUT_S,
        raise_on_status=False,
    )


def _ask_other(uri: str) -> None:
    """Query a database, or a plugin's store, to report what is wrong before any work.

    A database of another MLflow version is refused: MLflow would migrate an older one unasked.
    """
    import sqlalchemy  # slow, and not needed for a server

    try:
        with drivers.missing_as_error():
            if _is_database(_scheme(uri)):
                _check_revision(_database_revision(uri), UPGRADE_DATABASE)
            MlflowClient(uri).search_experiments(max_results=1)
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        reason = without_user(one_line(Exception(str(error).partition("\n")[0])))
        raise StorageError(
            f"The store {without_credentials(uri)} cannot be used: {reason}. Mend that, or set "
            f"MLFLOW_TRACKING_URI to another store."
        ) from error


def _database_revision(uri: str) -> str:
    """Read the schema revision of a database; empty if it is new."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return ""
            found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))
            return str(found.scalar() or "")
    finally:
        engine.dispose()


def _check_revision(revision: str, upgrade_command: str) -> None:
    """Refuse a store of another MLflow version, which could no longer open it once migrated."""
    newest = sqlite_file.newest_revision()
    if revision and newest and revision != newest:
        raise StorageError(
            f"The store is of another MLflow (schema {revision}, not {newest}), which could not "
            "open it any more once it is upgraded. To upgrade it, after a backup: "
            f"{upgrade_command}"
        )


def _make_once(path: Path, uri: str) -> None:
    """Create a new store in one process while others wait: two at once would crash."""
    if folder := sqlite_file.find_misread_folder(Path.cwd(), path):
        raise StorageError(
            f"MLflow misreads the folder {folder}, because of an apostrophe, a %, a ? or a # in "
            f"its path. Move the checkout to a folder without."
        )
    if os.environ.get("MLFLOW_RUN_ID") and not path.exists():
        # `mlflow run` has written its run to a file of this name in its own working folder
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
            if not _has_tables(path):
                _make(path)
    except OSError as error:
        raise StorageError(
            f"The store {uri} cannot be made: {error.strerror}. Set MLFLOW_TRACKING_URI to a place "
            f"that you can write to."
        ) from error


def _make(path: Path) -> None:
    """Create a store atomically: in a file beside its place, then renamed.

    A partial store, left by a killed process, would look like one of an older MLflow.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, f"{path} is no file")
    half = path.with_name(f".{path.name}.half")
    half.unlink(missing_ok=True)  # left by a killed process
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # seconds, once a store

    made = SqlAlchemyStore(f"{SQLITE}{half.absolute()}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    made.engine.dispose()
    half.replace(path)


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, kind)  # released when the file is closed or the process dies
        yield


def _has_tables(path: Path) -> bool:
    """Whether this is a store of the installed MLflow; False if there is nothing yet.

    Raises:
        StorageError: it belongs to another MLflow version, is no store, or cannot be opened.
    """
    if not path.is_file():
        return False
    try:
        revision = sqlite_file.read_revision(path)
        if not revision and not sqlite_file.is_empty(path):
            raise StorageError(
                f"{path} is no store of MLflow, or half made. Set MLFLOW_TRACKING_URI to another "
                f"file, or put this one away: {sqlite_file.set_aside_command(path)}"
            )
    except sqlite3.Error as error:
        raise StorageError(
            f"The store {path} cannot be opened: {error}. Look into it: "
            f"{sqlite_file.repair_file_command(path, error)}"
        ) from error
    _check_revision(revision, sqlite_file.upgrade_command(path))
    return bool(revision)


if __name__ == "__main__":
    try:
        prepare_store()
    except StorageError as refused:
        print(f"store: {refused}", file=sys.stderr)
        sys.exit(2)
    print(f"The store is {without_credentials(mlflow.get_tracking_uri())}")
