"""The experiment that the environment names, asked for without MLflow: whether runs may go to it.

`mlflow run` makes its run before any step begins, and ends in fifty lines where it may not.
"""

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

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
    query = urllib.parse.urlencode(asked)
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/experiments/{way}?{query}")
    user, password = (
        os.environ.get(f"MLFLOW_TRACKING_{kind}") for kind in ("USERNAME", "PASSWORD")
    )
    if user and password:
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
    try:
        with urllib.request.urlopen(request, timeout=SERVER_TIMEOUT_S) as answer:
            found = json.load(answer)["experiment"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    is_deleted = found["lifecycle_stage"] == "deleted"
    return NamedExperiment(found["experiment_id"], found["name"], is_deleted)


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
