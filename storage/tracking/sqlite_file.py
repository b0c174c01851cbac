"""The file of an sqlite store, read without MLflow.

Needs only the standard library: tools.doctor runs before there is an environment.
"""

import re
import shlex
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from sys import version_info

COMPANIONS = ("-journal", "-wal", "-shm")  # a database is incomplete without them
BUSY_S = 20.0  # as long as MLflow waits for another process to write


def find_misread_folder(here: Path, store: Path) -> str:
    """Return the folder whose path has characters that MLflow misreads; empty if there is none.

    Args:
        here: where the run starts and its artifacts go.
        store: the store's file; an apostrophe does harm only while it does not exist yet.
    """
    # %xx is decoded in artifact paths, ? begins a URI's query, and ' breaks the SQL of new tables
    misread = r"%[0-9a-fA-F]{2}|\?" + ("" if store.exists() else "|'")
    if version_info >= (3, 14):  # its url2pathname stops at a #: files would land elsewhere
        misread += "|#"
    if re.search(misread, str(here)):
        return str(here)
    mlflow = _mlflow_folder()  # alembic interpolates any % in this path
    return mlflow if "%" in mlflow else ""


def read_revision(path: Path) -> str:
    """Read the schema revision of a store; empty if no MLflow has finished creating it.

    The file is opened for writing: the partial write of a killed process is in a journal that only
    a writer can roll back, which SQLite does at the first read.

    Raises:
        sqlite3.Error: it is no database, is locked by another process, or cannot be rolled back.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as store:
        named = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
        if store.execute(named).fetchone() is None:
            return ""
        row = store.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else ""


def is_empty(path: Path) -> bool:
    """Whether a database has no tables at all, as right after its creation.

    Raises:
        sqlite3.Error: as for read_revision.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as store:
        return store.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def repair_file_command(path: Path, error: sqlite3.Error) -> str:
    """Return a command that helps with an unreadable file; none of them loses data."""
    reason = str(error)
    if "locked" in reason:
        return f"fuser {shlex.quote(str(path))}  # the process that holds it: let it end"
    if "not a database" in reason or "malformed" in reason:
        return set_aside_command(path)
    return f"ls -l {_quoted(path)}"


def set_aside_command(path: Path) -> str:
    """Return the command that moves a database away, together with its journal."""
    folder = shlex.quote(f"{path}.kept")
    return f"mkdir {folder} && mv {_quoted(path)} {folder}"


def upgrade_command(path: Path) -> str:
    """Return the command that backs a store up and migrates it to the installed MLflow's schema.

    The backup needs no journal: the file has just been read, which leaves none.
    """
    backup = " ".join(shlex.quote(str(one)) for one in (path, f"{path}.bak"))
    return f"cp -p {backup} && mlflow db upgrade {shlex.quote(f'sqlite:///{path}')}"


def newest_revision() -> str:
    """Return the schema revision that the installed MLflow needs; empty if it cannot be found."""
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
