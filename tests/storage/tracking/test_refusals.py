"""Each way in which a store can refuse gives one line that says what to do."""

import errno
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import OperationalError

from storage import StorageError, StoreGoneError, UserError
from storage.tracking import artifacts, experiments, models, refusals, sqlite_file
from storage.tracking import store as tracking_store
from storage.tracking.model_references import resolve
from storage.tracking.registry import Registry
from tests.stores import Store
from tools import doctor


class Answers:
    """A server's answer to every request."""

    status, body, uri, later = 200, b"{}", "", ""  # later: Retry-After


@pytest.fixture
def server(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(answers.status)
            if answers.later:
                self.send_header("Retry-After", answers.later)
            self.send_header("Content-Length", str(len(answers.body)))
            self.end_headers()
            self.wfile.write(answers.body)

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        answers.uri = f"127.0.0.1:{running.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{answers.uri}")
        yield answers
        running.shutdown()
        thread.join()


PAGE = b"<!DOCTYPE html><html>Log in</html>"
FAULTS = [
    (401, b"", "MLFLOW_TRACKING_USERNAME"),
    (401, PAGE, "MLFLOW_TRACKING_USERNAME"),
    (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "permission"),
    (403, b"Permission denied", "permission"),
    (404, PAGE, "MLFLOW_TRACKING_URI"),
    (407, b"", "HTTPS_PROXY"),
    (413, PAGE, "client_max_body_size"),
    (429, b"", "later"),
    (500, b"", "server's log"),
    (502, PAGE, "server's log"),
    (503, b"", "server's log"),
    (504, b"", "server's log"),
    (507, b"", "Make room on the server"),
    (200, PAGE, "MLFLOW_TRACKING_TOKEN"),
]


@pytest.mark.parametrize(("status", "body", "said"), FAULTS)
def test_what_a_server_answers_is_one_line_at_the_door_and_later(
    server: Answers, status: int, body: bytes, said: str
) -> None:
    server.status, server.body = status, body
    with pytest.raises(StorageError) as at_door:
        tracking_store.prepare_store()
    with pytest.raises(StorageError) as later, tracking_store.loss_as_error("Start it."):
        MlflowClient().log_param("a" * 32, "name", "value")
    for line in (str(at_door.value), str(later.value)):
        assert said in line
        assert "\n" not in line
        assert "<html>" not in line
    assert not isinstance(later.value, StoreGoneError)


@pytest.mark.parametrize("name", ["USERNAME", "PASSWORD"])
def test_a_user_that_mlflows_server_cannot_read_is_told_so_where_it_is_refused(
    server: Answers, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server.status = 401
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "jürgen")
    with pytest.raises(StorageError, match="whose name or password is not ASCII") as at_door:
        tracking_store.prepare_store()
    assert "jürgen" not in str(at_door.value)


UNREADABLE = {
    "no section": b"mlflow_tracking_password = hush\n",
    "a lone %": b"[mlflow]\nmlflow_tracking_username = ana\nmlflow_tracking_password = hush%x\n",
    "twice": b"[mlflow]\nmlflow_tracking_password = hush\nmlflow_tracking_password = hush\n",
    "no text": b"[mlflow]\nmlflow_tracking_password = hush\xff\n",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_of_users_that_mlflow_cannot_read_is_one_line_without_what_is_in_it(
    server: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageError, match=r"cannot read ~/\.mlflow/credentials") as refused:
        tracking_store.prepare_store()
    assert "hush" not in str(refused.value)
    (problem,) = [one for one in doctor.store() if one.cure]
    assert problem.seen == "not asked: MLflow cannot read ~/.mlflow/credentials"
    assert "hush" not in str(problem)


def test_a_server_that_asks_to_be_left_alone_for_hours_is_asked_for_minutes(
    server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setenv("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "")  # restored after the test
    monkeypatch.delenv("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    tracking_store.prepare_store()
    server.status, server.later = 429, "86400"
    with (
        pytest.raises(StorageError, match="again and again"),
        tracking_store.loss_as_error("Start it."),
    ):
        MlflowClient().log_param("a" * 32, "name", "value")
    n_waits = len(waits)
    with pytest.raises(StorageError, match="429"):
        tracking_store.prepare_store()
    assert n_waits > 3
    assert sum(waits) < 600


def test_files_that_a_server_hands_out_are_not_looked_for_behind_it(store: Store) -> None:
    client = MlflowClient()
    client.create_registered_model("behind")
    client.create_model_version("behind", "mlflow-artifacts:/1/models/m-1/artifacts")
    with pytest.raises(StorageError, match="server hands out its files: set MLFLOW_TRACKING_URI"):
        models.load("models:/behind/1")


@pytest.mark.parametrize("body", [b"[]", b'"no"', b'{"files": [{}]}', b'{"files": 3}'])
def test_a_list_of_files_that_is_none_is_one_line(server: Answers, body: bytes) -> None:
    server.body = body
    uri = f"http://{server.uri}/api/2.0/mlflow-artifacts/artifacts/1"
    with (
        pytest.raises(StorageError, match="what is not MLflow's"),
        tracking_store.loss_as_error("-"),
    ):
        artifacts.list_files(uri)


@pytest.mark.parametrize(
    "ask",
    [lambda: Registry("trips", run_id="", developer="").champion(), lambda: resolve("models:/t/1")],
    ids=["registry", "model"],
)
def test_what_the_registry_is_asked_for_says_what_to_do_too(
    server: Answers, ask: Callable[[], object]
) -> None:
    server.status, server.body = 403, b"Permission denied"
    with pytest.raises(StorageError, match=r"403 Forbidden\. Ask for the permission"):
        ask()
    server.status, server.body = 404, PAGE  # a proxy's page: it says nothing about a version
    with pytest.raises(StorageError, match="404 Not Found, with a web page"):
        ask()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "Make room"),
        (errno.EDQUOT, "Make room"),
        (errno.EROFS, "Let this user write"),
        (errno.EACCES, "Let this user write"),
    ],
)
def test_a_disk_that_takes_nothing_is_one_line(number: int, said: str) -> None:
    full = OSError(number, "told by the system", "/data/x")
    with pytest.raises(StorageError, match=f"/data/x. {said}"), tracking_store.loss_as_error(""):
        raise full
    with pytest.raises(FileNotFoundError), tracking_store.loss_as_error(""):  # a bug of the project
        raise FileNotFoundError(errno.ENOENT, "none", "/data/x")


@pytest.mark.parametrize(
    "said",
    [
        "Missing value for required parameter 'experiment_id'. See the API docs.",
        "Invalid experiment ID ''. Experiment ID must be a valid integer.",
    ],
)
def test_an_id_that_an_answer_did_not_hold_is_the_proxys_doing(said: str) -> None:
    error = RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": said})
    assert "returned no id. Look at the proxy" in refusals.explain_refusal(error)


def test_a_run_that_was_deleted_meanwhile_is_one_line_of_a_server_too() -> None:
    said = f"The run {'a' * 32} must be in the 'active' state. Current state is deleted."
    error = RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": said})
    assert "was deleted before it had finished. Run this again; " in refusals.explain_refusal(error)


def test_a_mistake_of_the_project_stays_a_surprise() -> None:
    bad = RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid filter 'x'"})
    assert refusals.explain_refusal(bad) == ""
    assert refusals.explain_refusal(MlflowException.invalid_parameter_value("bad filter")) == ""
    assert refusals.explain_refusal(ValueError("Response body: '<html>'")) == ""


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("./mlruns", "is a folder"),
        ("file:///tmp/mlruns", "is a folder"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("ftp://ada:hush@host/x", "no store for"),
        ("oracle://ada:hush@127.0.0.1:1/x", "no store for"),
        ("mysql+nodriver://ada:hush@127.0.0.1:1/x", "cannot be used"),
        ("databricks", "cannot be used"),
    ],
)
def test_a_uri_that_is_no_store(
    store: Store, monkeypatch: pytest.MonkeyPatch, uri: str, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StorageError, match="MLFLOW_TRACKING_URI") as refused:
        tracking_store.prepare_store()
    assert said in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_password_leaves_the_uri_before_anything_can_quote_it(
    server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:hu%40sh@{server.uri}")
    tracking_store.prepare_store()
    assert mlflow.get_tracking_uri() == f"http://{server.uri}"
    creds = tracking_store.get_default_host_creds(mlflow.get_tracking_uri())
    assert (creds.username, creds.password) == ("ada", "hu@sh")


# --- files of sqlite stores

CRASH = """
import os, sqlite3, sys
store = sqlite3.connect(sys.argv[1])
store.execute("PRAGMA cache_size = 1")
store.execute("UPDATE alembic_version SET version_num = 'half'")
store.execute("CREATE TABLE spill (text)")
store.executemany("INSERT INTO spill VALUES (?)", [("x" * 4000,)] * 500)
os._exit(9)
"""


@pytest.fixture
def copy(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the store that a test may damage."""
    path = tmp_path / "my store.db"
    shutil.copy(store.folder / "mlflow.db", path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return path


@pytest.mark.parametrize("look", [tracking_store.prepare_store, tracking_store.exists, "doctor"])
def test_what_a_killed_process_has_written_half_is_rolled_back(
    copy: Path, look: Callable[[], object] | str
) -> None:
    subprocess.run([sys.executable, "-c", CRASH, str(copy)], check=False)
    journal = copy.with_name(f"{copy.name}-journal")
    assert journal.stat().st_size > 0
    with (
        pytest.raises(sqlite3.OperationalError),
        closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as reading,
    ):
        reading.execute("SELECT * FROM alembic_version").fetchone()
    if callable(look):
        look()
    else:
        assert [finding.cure for finding in doctor.store()] == [""]
    assert not journal.exists()
    assert sqlite_file.read_revision(copy) == sqlite_file.newest_revision()


def test_a_store_of_an_older_mlflow_is_left_as_it_is_and_the_command_upgrades_it(
    copy: Path,
) -> None:
    with closing(sqlite3.connect(copy)) as old, old:
        old.execute("UPDATE alembic_version SET version_num = 'older'")
        old.execute("DROP TABLE trace_info")
    before = copy.read_bytes()
    for look in (tracking_store.exists, tracking_store.prepare_store):
        with pytest.raises(StorageError, match="of another MLflow") as refused:
            look()
        assert sqlite_file.upgrade_command(copy) in str(refused.value)
    (problem,) = (finding for finding in doctor.store() if finding.cure)
    assert problem.cure == sqlite_file.upgrade_command(copy)
    backup, mark, _ = problem.cure.partition(" && mlflow db upgrade ")
    assert mark
    subprocess.run(backup, shell=True, check=True)
    assert copy.with_name(f"{copy.name}.bak").read_bytes() == before == copy.read_bytes()


def test_a_database_that_is_put_away_keeps_the_journal_that_it_needs(copy: Path) -> None:
    subprocess.run([sys.executable, "-c", CRASH, str(copy)], check=False)
    subprocess.run(sqlite_file.set_aside_command(copy), shell=True, check=True)
    there = copy.with_name(f"{copy.name}.kept") / copy.name
    assert not copy.exists()
    assert sqlite_file.read_revision(there) == sqlite_file.newest_revision()


def test_a_text_and_a_locked_database_are_one_line(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0)
    with closing(sqlite3.connect(copy)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"database is locked.*fuser"):
            tracking_store.prepare_store()
    copy.write_text("a text of some length, and no database at all" * 20)
    with pytest.raises(StorageError, match=r"not a database.*mkdir"):
        tracking_store.exists()


def test_a_full_database_says_so_whatever_was_about_to_be_asked() -> None:
    error = OperationalError("UPDATE runs", {}, Exception("database or disk is full"))
    error.add_detail("(raised as a result of Query-invoked autoflush; consider a block)")
    assert refusals.explain_refusal(error).startswith(
        "The database of the store says: database or disk is full. Look whether"
    )


# --- experiments


def test_the_experiment_that_the_environment_names(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    made = client.create_experiment("by id", (store.folder / "by id").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", made)
    with pytest.raises(UserError, match="Unset one of them"):
        experiments.find_experiment()
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert experiments.use_experiment() == made
    client.delete_experiment(made)
    with pytest.raises(UserError, match=f"mlflow experiments restore --experiment-id {made}"):
        experiments.find_experiment()
    for unknown in ("987654", "", "one"):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", unknown)
        with pytest.raises(UserError, match=f"no experiment '{unknown}'"):
            experiments.find_experiment()
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", " ")
    with pytest.raises(UserError, match="MLFLOW_EXPERIMENT_NAME is ' '"):
        experiments.find_experiment()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "x" * 501)
    with pytest.raises(UserError, match="has 501 characters, and MLflow takes 500"):
        experiments.find_experiment()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "x" * 500)
    assert experiments.find_experiment() is None


def test_artifacts_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = r"cannot be written to .*file/x: Not a directory.* create -n <name> --artifact-location"
    with pytest.raises(StorageError, match=said):
        experiments.check_writable((tmp_path / "file" / "x").as_uri())


# --- artifacts


def test_only_an_artifact_that_is_not_listed_is_called_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("whole", "a/text.txt")
    run_id, uri = run.info.run_id, run.info.artifact_uri
    gone = artifacts._unreadable_error(run_id, uri, "a/other.txt", OSError("cut"))
    assert "Was it deleted?" in str(gone)
    cut = MlflowException("The following failures:\n##### File a/text.txt #####\nConnection broken")
    there = str(artifacts._unreadable_error(run_id, uri, "a/text.txt", cut))
    assert "a/text.txt" in there
    assert there.endswith("exists, but arrives incomplete. Connection broken.")
    said = "409 Client Error: Conflict for url: http://host/a/text.txt. Response text: injected"
    cut = MlflowException(f"The following failures:\n##### File a/text.txt #####\n{said}")
    there = str(artifacts._unreadable_error(run_id, uri, "a/text.txt", cut))
    assert "arrives incomplete. The server answers 409 Conflict. Check MLFLOW" in there
    with artifacts.open_file(run_id, "a/text.txt") as path, pytest.raises(OSError, match="5 bytes"):
        artifacts._check_size(path, 9)


@pytest.mark.parametrize(
    ("host", "is_told"), [("team.s3.amazonaws.com", True), ("127.0.0.1:9000", False)]
)
def test_an_s3_of_ones_own_that_was_looked_for_at_amazons_is_told_how_to_name_it(
    host: str, is_told: bool
) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    line = refusals.explain_refusal(
        exceptions.EndpointConnectionError(endpoint_url=f"http://{host}")
    )
    assert line.startswith("The store of files says: Could not connect to the endpoint URL")
    assert ("AWS_ENDPOINT_URL" in line) == is_told
