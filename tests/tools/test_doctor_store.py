"""What the doctor finds wrong with the store, and the command it gives for each problem."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer

import pytest
import requests
from mlflow import MlflowClient

from storage.tracking import sqlite_file
from tests.stores import Store
from tests.tools.checkout_root import problems
from tools import doctor


def test_a_store_that_is_not_there_yet_is_no_problem(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (found,) = doctor.store()
    assert "`make store` makes it" in found.seen
    assert not (root / "mlflow.db").exists()


def test_a_store_made_by_the_installed_mlflow_is_migrated(store: Store) -> None:
    (found,) = doctor.store()
    assert found.seen == "can be read and is migrated"


@pytest.mark.parametrize(
    ("tables", "cure"),
    [
        (
            "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('0')",
            "db",
        ),
        ("CREATE TABLE alembic_version (version_num)", "mv"),
        ("CREATE TABLE trips (miles)", "mv"),
    ],
    ids=["of another MLflow", "half made", "something else"],
)
def test_a_store_that_mlflow_cannot_use(
    root: Path, monkeypatch: pytest.MonkeyPatch, tables: str, cure: str
) -> None:
    path = root / "old.db"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(tables)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    (problem,) = problems(doctor.store)
    cures = {"db": sqlite_file.upgrade_command(path), "mv": sqlite_file.set_aside_command(path)}
    assert problem.cure == cures[cure]


def test_a_store_in_a_folder_with_a_space_is_found_by_the_name_that_mlflow_writes(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "my wörk").mkdir()
    shutil.copy(store.folder / "mlflow.db", root / "my wörk")
    uri = f"sqlite:///{root}/my%20w%C3%B6rk/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (found,) = doctor.store()
    assert found.seen == "can be read and is migrated"


def test_a_relative_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    (problem,) = problems(doctor.store)
    assert problem.cure == f"export MLFLOW_TRACKING_URI=sqlite:///{root}/runs.db"


def test_a_server_that_does_not_answer_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ana:hush@127.0.0.1:1/?token=hush")
    (problem,) = problems(doctor.store)
    assert problem.what == "store http://127.0.0.1:1"
    assert "hush" not in str(problem)
    assert problem.cure.startswith("unset MLFLOW_TRACKING_URI")


@pytest.fixture
def closed_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that refuses everybody, and an empty home; yield the credentials it was sent."""
    asked: list[str] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers.get("Authorization", "nobody"))
            self.send_error(401)

    with HTTPServer(("127.0.0.1", 0), Door) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        yield asked
        server.shutdown()


def test_an_entry_of_netrc_that_others_may_read_is_taken_as_a_run_takes_it_and_named(
    closed_server: list[str], tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login git password of-git\n")
    (tmp_path / ".netrc").chmod(0o644)
    (problem,) = problems(doctor.store)
    requests.post(os.environ["MLFLOW_TRACKING_URI"], timeout=9)
    assert closed_server[0] == closed_server[1] != "nobody"
    assert (problem.seen, problem.cure) == ("answers 401 Unauthorized", doctor.NETRC)


@pytest.mark.parametrize("name", ["USERNAME", "PASSWORD"])
def test_a_user_that_mlflows_server_cannot_read_is_told_so_where_it_is_refused(
    closed_server: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    (problem,) = problems(doctor.store)
    assert problem.cure == doctor.LOG_IN
    monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "jürgen")
    (problem,) = problems(doctor.store)
    assert problem.cure == doctor.NOT_ASCII
    assert problem.cure.startswith(f"{doctor.LOG_IN}  # ")
    assert len(closed_server) == 2


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.0 200 OK\r\n\r\n<html>"])
def test_a_server_of_something_else_is_called_so(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(said)
            self.request.recv(4096)

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "taxi")
    with TCPServer(("127.0.0.1", 0), Other) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_address[1]}")
        found, experiments = problems(doctor.store), problems(doctor.experiment)
        server.shutdown()
    assert [one.seen.partition(",")[0] for one in found] == ["answers with what is not MLflow's"]
    assert experiments == []


def test_a_file_of_users_that_mlflow_cannot_read_is_named(
    closed_server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("user=ana\n")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "taxi")
    assert problems(doctor.experiment) == closed_server == []
    (problem,) = problems(doctor.store)
    assert problem.seen == "not asked: MLflow cannot read ~/.mlflow/credentials"
    assert "rm " not in problem.cure  # the file may hold the only copy of the password


@pytest.fixture(params=["file", "server"])
def asked_store(
    request: pytest.FixtureRequest, store: Store, monkeypatch: pytest.MonkeyPatch
) -> MlflowClient:
    """A store that the environment names: as a file, or through a server on another store."""
    uri = store.uri if request.param == "file" else request.getfixturevalue("mlflow_server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def test_a_deleted_experiment_is_found_by_name_and_by_id_before_a_run_cannot_begin_in_it(
    asked_store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "deleted & gone"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    assert [found.seen for found in doctor.experiment()] == [
        "not there yet: the first run makes it"
    ]
    number = asked_store.create_experiment(name)
    assert [found.seen for found in doctor.experiment()] == ["is there"]
    asked_store.delete_experiment(number)
    (problem,) = problems(doctor.experiment)
    assert problem.what == f"experiment {name}"
    assert problem.cure.startswith(f"mlflow experiments restore --experiment-id {number} ")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    assert problems(doctor.experiment) == [problem]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "4711")
    (problem,) = problems(doctor.experiment)
    assert problem.cure == "unset MLFLOW_EXPERIMENT_ID"


def test_of_a_store_that_cannot_be_asked_no_experiment_is_looked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "any")
    for uri in ("http://ana:hush@127.0.0.1:1", "", "sqlite:///none.db", "databricks"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert list(doctor.experiment()) == []
    assert not list(root.glob("*.db"))


def test_a_folder_that_mlflow_misreads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "it's").mkdir()
    monkeypatch.chdir(root / "it's")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (problem,) = problems(doctor.store)
    assert "checkout/it's, because of an apostrophe" in problem.seen
    assert problem.cure.startswith("rm -rf .venv && mv ")
