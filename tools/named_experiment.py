"""The experiment that the environment names, looked up without MLflow: may runs go to it?

`mlflow run` creates its run before any step begins, and fails with fifty lines if it may not.
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
    """What a store knows of the experiment."""

    number: str
    name: str
    is_deleted: bool


def requested_experiment() -> dict[str, str]:
    """Return id or name from the environment, keyed as in MLflow's API; empty if there is none."""
    number, name = (os.environ.get(f"MLFLOW_EXPERIMENT_{kind}") for kind in ("ID", "NAME"))
    if number:
        return {"experiment_id": number}
    return {"experiment_name": name} if name else {}


def ask_server(address: str, requested: dict[str, str]) -> NamedExperiment | None:
    """Ask a server for the experiment; None if there is none.

    Raises:
        OSError, ValueError, KeyError: the server does not answer as MLflow does, or refuses.
    """
    way = "get" if "experiment_id" in requested else "get-by-name"
    try:
        found = ask_experiments(address, f"{way}?{urllib.parse.urlencode(requested)}")["experiment"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    is_deleted = found["lifecycle_stage"] == "deleted"
    return NamedExperiment(found["experiment_id"], found["name"], is_deleted)


def may_write(address: str, number: str) -> bool:
    """Ask a server whether this user may write to an experiment, without changing it."""
    try:
        # this tag is never set, so its deletion changes nothing and tests the permission alone
        ask_experiments(
            address, "delete-experiment-tag", {"experiment_id": number, "key": "no such tag"}
        )
    except urllib.error.HTTPError as error:
        return error.code != 403
    return True


def ask_experiments(address: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request to a server's API of experiments, as the user that MLflow would be.

    Raises:
        OSError, ValueError, HTTPException: the server does not answer, refuses (HTTPError), or is
            not MLflow's.
        configparser.Error: MLflow cannot read its file of credentials.
    """
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **_login()},
    )
    with urllib.request.urlopen(request, timeout=SERVER_TIMEOUT_S) as answer:
        return dict(json.load(answer))


def _login() -> dict[str, str]:
    """Return the header by which MLflow would log in."""
    user, password = find_user()
    if user and password:
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {login}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def find_user() -> tuple[str, str]:
    """Look up user and password: in ~/.netrc, the URI, the environment, or MLflow's file.

    Raises:
        configparser.Error: MLflow cannot read its file, which it reads in any case.
    """
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    of_file = read_users(names)
    uri = urllib.parse.urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    user, password = read_netrc(uri.hostname)
    if not (user and password):
        user, password = map(urllib.parse.unquote, (uri.username or "", uri.password or ""))
    if not (user and password):
        user, password = (os.environ.get(name) or of_file[name] for name in names)
    return user, password


def read_users(names: Sequence[str]) -> dict[str, str]:
    """Read ~/.mlflow/credentials as MLflow does, for which a lone % is an error.

    Raises:
        configparser.Error: it cannot be read.
    """
    file = configparser.ConfigParser()
    try:
        file.read(Path("~/.mlflow/credentials").expanduser())
    except UnicodeDecodeError as error:
        raise configparser.Error("it is no text") from error
    return {name: file.get("mlflow", name, fallback="") for name in names}


def read_netrc(host: str | None) -> tuple[str, str]:
    """Look up user and password of a host in ~/.netrc, which requests prefers to all others."""
    # by its path: if Python finds the file itself, it refuses one that others may read
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        found = netrc.netrc(file).authenticators(host or "")
    except (OSError, netrc.NetrcParseError):
        return "", ""
    user, _, password = found or ("", "", "")
    return user or "", password or ""


def ask_file(path: Path, requested: dict[str, str]) -> NamedExperiment | None:
    """Look the experiment up in the file of an sqlite store; None if there is none.

    Raises:
        sqlite3.Error: it cannot be read, or is no store.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
        rows = store.execute("SELECT experiment_id, name, lifecycle_stage FROM experiments")
        found = [NamedExperiment(str(row[0]), str(row[1]), row[2] == "deleted") for row in rows]
    (named,) = requested.values()
    at = 0 if "experiment_id" in requested else 1
    return next((one for one in found if one[at] == named), None)
