"""The file of an sqlite store, looked at without MLflow.

It needs the standard library alone: tools.doctor runs before there is an environment.
"""

import re
import shlex
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from sys import version_info

COMPANIONS = ("-journal", "-wal", "-shm")  # without them the file is not whole
BUSY_S = 20.0  # as MLflow waits for another's write


def misread_folder(here: Path, store: Path) -> str:
    """Return the folder that keeps MLflow from a store, for what its path has in it; else empty.

    Args:
        here: where the run starts, and its artifacts go.
        store: the file, which an apostrophe troubles only where it is new.
    """
    # decoded where artifacts are written, where a URI's query begins, and quoted in new tables
    misread = r"%[0-9a-fA-F]{2}|\?" + ("" if store.exists() else "|'")
    if version_info >= (3, 14):  # whose url2pathname ends at a fragment: files land beside here
        misread += "|#"
    if re.search(misread, str(here)):
        return str(here)
    mlflow = _mlflow_folder()  # alembic takes any % in there for a reference
    return mlflow if "%" in mlflow else ""


def read_revision(path: Path) -> str:
    """Read which schema a store is of; empty where no MLflow has finished making it.

    It is opened for writing: what a process has written half when it was killed lies in a journal
    that only a writer can roll back, and SQLite does so at the first look.

    Raises:
        sqlite3.Error: it is no database, is held by another, or cannot be rolled back here.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as store:
        named = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
        if store.execute(named).fetchone() is None:
            return ""
        row = store.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else ""


def is_empty(path: Path) -> bool:
    """Whether a database holds no table at all, as one that was hardly begun.

    Raises:
        sqlite3.Error: as read_revision.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as store:
        return store.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def cure_file(path: Path, error: sqlite3.Error) -> str:
    """Return the command that helps where a file cannot be read; none of them loses anything."""
    reason = str(error)
    if "locked" in reason:
        return f"fuser {shlex.quote(str(path))}  # the process that holds it: let it end"
    if "not a database" in reason or "malformed" in reason:
        return set_aside(path)
    return f"ls -l {_quoted(path)}"


def set_aside(path: Path) -> str:
    """Return the command that puts a database away, whole: with the journal that belongs to it."""
    folder = shlex.quote(f"{path}.kept")
    return f"mkdir {folder} && mv {_quoted(path)} {folder}"


def upgrade(path: Path) -> str:
    """Return the command that brings a store to the schema of the MLflow here, after a backup.

    The file has just been read, so that no journal is left beside it.
    """
    backup = " ".join(shlex.quote(str(one)) for one in (path, f"{path}.bak"))
    return f"cp -p {backup} && mlflow db upgrade {shlex.quote(f'sqlite:///{path}')}"


def newest_revision() -> str:
    """Find the schema that the installed MLflow wants; empty where there is no MLflow."""
    if not (mlflow := _mlflow_folder()):
        return ""
    folder = Path(mlflow, "store", "db_migrations", "versions")
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    newest = _named("revision", texts) - _named("down_revision", texts)
    return newest.pop() if len(newest) == 1 else ""


def _mlflow_folder() -> str:
    spec = find_spec("mlflow")
    return (spec.submodule_search_locations or [""])[0] if spec else ""


def _named(what: str, texts: Iterable[str]) -> set[str]:
    return {name for text in texts for name in re.findall(rf'^{what} = "(\w+)"', text, re.M)}


def _quoted(path: Path) -> str:
    beside = [path.with_name(path.name + ending) for ending in COMPANIONS]
    return " ".join(shlex.quote(str(one)) for one in (path, *beside) if one.exists())
