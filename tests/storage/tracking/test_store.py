"""The store: whether it answers, and how a new one is created."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import path_to_local_sqlite_uri

from storage import StorageError, StoreGoneError
from storage.checkout import ROOT
from storage.tracking import runs, sqlite_file
from storage.tracking import store as tracking_store
from tests.stores import EXPERIMENT, Store


@pytest.mark.parametrize("uri", ["http://ada:hush@127.0.0.1:1", "http://127.0.0.1:1/?token=hush"])
def test_a_server_that_does_not_answer_is_named_without_credentials(
    store: Store, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StorageError, match=r"answers at http://127\.0\.0\.1:1[/ ]") as got:
        tracking_store.prepare_store()
    assert "hush" not in str(got.value)


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite+pysqlite://",
    ],
)
def test_a_store_in_memory_is_refused_before_anything_is_lost_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for look in (tracking_store.prepare_store, tracking_store.exists):
        with pytest.raises(StorageError, match="is in memory, and ends with each step"):
            look()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_store_s_place_that_is_no_file_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(StorageError, match=r"cannot be made: .*mlflow\.db is no file\. Set"):
        tracking_store.prepare_store()
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


# --- a server that goes away


@pytest.fixture
def nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that no longer answers."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:hush@127.0.0.1:1")
    return "http://127.0.0.1:1"


@pytest.mark.parametrize("hint", ["Start it.", lambda: "Start it."], ids=["text", "function"])
def test_a_server_that_is_gone_is_one_line_with_the_hint(
    nobody: str, hint: str | Callable[[], str]
) -> None:
    with pytest.raises(StoreGoneError) as gone, tracking_store.loss_as_error(hint):
        MlflowClient().get_run("a")
    line = f"The MLflow server at {nobody} went away and did not come back. Start it."
    assert str(gone.value) == line


def test_the_first_hint_stands(nobody: str) -> None:
    outer, inner = tracking_store.loss_as_error("outer"), tracking_store.loss_as_error("inner")
    with pytest.raises(StoreGoneError, match=r"inner$"), outer, inner:
        MlflowClient().get_run("a")


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("zone")])
def test_nobody_is_asked_for_a_hint_when_something_else_fails(
    store: Store, error: Exception
) -> None:
    def hint() -> str:
        pytest.fail("asked")

    with pytest.raises(type(error)), tracking_store.loss_as_error(hint):
        raise error
    with pytest.raises(MlflowException, match="not found"), tracking_store.loss_as_error(hint):
        MlflowClient().get_run("a" * 32)


# --- a store that does not exist yet

FIRST_USE = """
import sys
from storage.tracking import runs
from storage.tracking import store as tracking_store
print("ready", flush=True)
input()
with runs.StepRun("preprocess", "ana"):
    pass
"""


def test_four_processes_may_use_a_new_store_at_once(tmp_path: Path) -> None:
    """Half of them use a relative URI, which from the same folder is the same file."""
    uris = [f"sqlite:///{tmp_path}/mlflow.db", "sqlite:///mlflow.db"] * 2
    env = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_EXPERIMENT_NAME": EXPERIMENT}
    first = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_USE],
            cwd=tmp_path,
            env=env | {"MLFLOW_TRACKING_URI": uri},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for uri in uris
    ]
    for process in first:
        assert process.stdout.readline() == "ready\n"
    for process in first:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[1] for process in first]
    assert [process.returncode for process in first] == [0] * 4, said
    found = Store(uris[0], tmp_path).runs().values()
    assert [run["info"]["status"] for run in found] == ["FINISHED"] * 4


def test_looking_for_a_store_does_not_make_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_store.exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert not tracking_store.exists()
    assert runs.experiment_id() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_store_in_a_folder_that_cannot_be_made_is_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(StorageError, match=r"file/mlflow\.db cannot be made: "):
        tracking_store.prepare_store()


@pytest.mark.parametrize("name", ["my wörk", 'a #1 "b" $x', "50 %", "it's/two floors/below"])
def test_a_store_is_named_as_its_folder_is_and_no_other_folder_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """MLflow's default store: `mlflow run` has made empty folders with the percent-encoded name."""
    folder, encoded = tmp_path / name, tmp_path / quote(name)
    folder.mkdir(parents=True)
    encoded.mkdir(parents=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", path_to_local_sqlite_uri(folder / "mlflow.db"))
    assert tracking_store.sqlite_path(mlflow.get_tracking_uri()) == folder / "mlflow.db"
    tracking_store.unescape_sqlite_uri()
    assert mlflow.get_tracking_uri() == f"sqlite:///{folder}/mlflow.db"
    assert list(tmp_path.iterdir()) == [tmp_path / Path(name).parts[0]]
    encoded.mkdir(parents=True)
    (encoded / "notes").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", path_to_local_sqlite_uri(folder / "mlflow.db"))
    tracking_store.unescape_sqlite_uri()
    assert (encoded / "notes").exists()


@pytest.mark.parametrize("name", ["it's", "my%20work", "really?", "work #1"])
def test_a_folder_that_mlflow_mistakes_for_another_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sqlite_file, "version_info", (3, 14))
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(StorageError, match=f"{re.escape(name)}, because of"):
        tracking_store.prepare_store()
    assert list((tmp_path / name).iterdir()) == []


def test_a_number_sign_is_read_by_mlflow_before_python_3_14(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "version_info", (3, 13))
    assert sqlite_file.find_misread_folder(tmp_path / "work #1", tmp_path / "mlflow.db") == ""


def test_an_mlflow_in_a_folder_that_alembic_misreads_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "50 %" / "mlflow").mkdir(parents=True)
    (tmp_path / "50 %" / "mlflow" / "__init__.py").touch()
    where = [str(tmp_path / "50 %" / "mlflow")]
    monkeypatch.setattr(
        sqlite_file, "find_spec", lambda _: SimpleNamespace(submodule_search_locations=where)
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(StorageError, match="50 %/mlflow, because of"):
        tracking_store.prepare_store()


def test_a_relative_store_that_is_not_in_this_folder_is_not_made_a_second_time(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of a cloned project runs in the clone, not where `mlflow run` was typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("MLFLOW_RUN_ID", "made elsewhere")
    with pytest.raises(StorageError, match="Set MLFLOW_TRACKING_URI to an absolute one"):
        tracking_store.prepare_store()
    assert list(tmp_path.iterdir()) == []
