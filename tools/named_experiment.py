"""The experiment that the environment names, asked for without MLflow: whether runs may go to it.

`mlflow run` makes its run before any step begins, and ends in fifty lines where it may not.
"""

import base64
import configparser
import json
import netrc
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

SERVER_TIMEOUT_S = 5


class NamedExperiment(NamedTuple):
    """What a store knows of it."""

    number: str
    name: str
    is_deleted: bool


def wanted() -> dict[str, str]:
    """Return what the environment names it by, as MLflow's API does; empty where it names none."""
    number, name = (os.environ.get(f"MLFLOW_EXPERIMENT_{kind}") for kind in ("ID", "NAME"))
    if number:
        return {"experiment_id": number}
    return {"experiment_name": name} if name else {}


def ask_server(address: str, asked: dict[str, str]) -> NamedExperiment | None:
    """Ask a server for it; None where there is none.

    Raises:
        OSError, ValueError, KeyError: it does not answer so, or lets only others see it.
    """
    way = "get" if "experiment_id" in asked else "get-by-name"
    try:
        found = ask_experiments(address, f"{way}?{urllib.parse.urlencode(asked)}")["experiment"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    is_deleted = found["lifecycle_stage"] == "deleted"
    return NamedExperiment(found["experiment_id"], found["name"], is_deleted)


def may_write(address: str, number: str) -> bool:
    """Ask a server whether runs may be made in an experiment; nothing there is changed."""
    try:
        # nobody has set this tag: to ask for its removal asks for the permission alone
        ask_experiments(
            address, "delete-experiment-tag", {"experiment_id": number, "key": "no such tag"}
        )
    except urllib.error.HTTPError as error:
        return error.code != 403
    return True


def ask_experiments(address: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask a server's API of experiments, as the user that MLflow would be there.

    Raises:
        OSError, ValueError, HTTPException: it does not answer, says no (HTTPError), or is not
            MLflow's.
        configparser.Error: MLflow cannot read its file of users.
    """
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **_login()},
    )
    with urllib.request.urlopen(request, timeout=SERVER_TIMEOUT_S) as answer:
        return dict(json.load(answer))


def _login() -> dict[str, str]:
    """Return the header of who MLflow would be."""
    user, password = find_user()
    if user and password:
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {login}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def find_user() -> tuple[str, str]:
    """Look up user and password: of ~/.netrc, the URI, the environment, or MLflow's file.

    Raises:
        configparser.Error: MLflow cannot read its file, and reads it whatever stands elsewhere.
    """
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    of_file = read_users(names)
    uri = urllib.parse.urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    user, password = in_netrc(uri.hostname)
    if not (user and password):
        user, password = map(urllib.parse.unquote, (uri.username or "", uri.password or ""))
    if not (user and password):
        user, password = (os.environ.get(name) or of_file[name] for name in names)
    return user, password


def read_users(names: Sequence[str]) -> dict[str, str]:
    """Read ~/.mlflow/credentials as MLflow does, to which a lone % is an error.

    Raises:
        configparser.Error: it cannot be read so.
    """
    file = configparser.ConfigParser()
    try:
        file.read(Path("~/.mlflow/credentials").expanduser())
    except UnicodeDecodeError as error:
        raise configparser.Error("it is no text") from error
    return {name: file.get("mlflow", name, fallback="") for name in names}


def in_netrc(host: str | None) -> tuple[str, str]:
    """Look up user and password of a host where requests does, before all that MLflow is told."""
    # by its name: of a file that it finds by itself Python refuses one that others may read
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        found = netrc.netrc(file).authenticators(host or "")
    except (OSError, netrc.NetrcParseError):
        return "", ""
    user, _, password = found or ("", "", "")
    return user or "", password or ""


def ask_file(path: Path, asked: dict[str, str]) -> NamedExperiment | None:
    """Look it up in the file of an sqlite store; None where there is none.

    Raises:
        sqlite3.Error: it cannot be read, or is no store.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
        rows = store.execute("SELECT experiment_id, name, lifecycle_stage FROM experiments")
        there = [NamedExperiment(str(row[0]), str(row[1]), row[2] == "deleted") for row in rows]
    (named,) = asked.values()
    at = 0 if "experiment_id" in asked else 1
    return next((one for one in there if one[at] == named), None)
