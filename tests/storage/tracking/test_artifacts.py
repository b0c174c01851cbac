"""Artifacts of runs, on this machine and on a server; no fetched copy is left behind."""

import gc
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from matplotlib.figure import Figure

from storage import StorageError
from storage.checkout import ROOT
from storage.repro import verify
from storage.tracking import artifacts, models
from tests.stores import EXPERIMENT, Store

MODEL = """
import mlflow
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str]): return model_input
mlflow.models.set_model(Model())
"""


@pytest.fixture
def run_id(store: Store) -> str:
    """A run with a few files on this machine."""
    with mlflow.start_run() as run:
        mlflow.log_text("1,2", "data/a b.csv")
        mlflow.log_text("é", "deep/er/still.txt")
    return run.info.run_id


def test_an_artifact_on_this_machine_is_read_where_it_lies(store: Store, run_id: str) -> None:
    with artifacts.open_file(run_id, "data/a b.csv") as path:
        assert path.is_relative_to(store.folder)
        assert path.read_text() == "1,2"
    assert path.exists()
    assert artifacts.read_text(run_id, "deep/er/still.txt") == "é"


@pytest.mark.parametrize("dpi", [None, 40])
def test_a_picture_drawn_once_is_the_one_that_savefig_draws_twice(dpi: int | None) -> None:
    def draw() -> Figure:
        figure = Figure(figsize=(3, 2), layout="constrained")
        figure.subplots().set(xlabel="zone", title="a title")
        return figure

    twice = io.BytesIO()
    draw().savefig(twice, format="png", dpi=dpi or "figure")
    assert artifacts.to_png(draw(), dpi) == twice.getvalue()


def test_a_picture_lies_where_it_was_asked_to(run_id: str) -> None:
    with mlflow.start_run(run_id):
        artifacts.log_figure(Figure(figsize=(1, 1)), "pictures/empty.png")
    assert artifacts.read_bytes(run_id, "pictures/empty.png").startswith(b"\x89PNG")


@pytest.mark.parametrize("read", [artifacts.read_text, artifacts.read_bytes])
def test_an_artifact_that_is_not_there_is_one_line(read: object, run_id: str) -> None:
    with pytest.raises(StorageError, match=rf"^Run {run_id} has no artifact no\.csv\. Was it"):
        read(run_id, "no.csv")
    with pytest.raises(StorageError, match=r"^Run nobody has no artifact no\.csv\."):
        read("nobody", "no.csv")


def test_what_goes_wrong_with_a_file_is_not_taken_for_its_loss(run_id: str) -> None:
    with pytest.raises(OSError, match="mine"), artifacts.open_file(run_id, "data/a b.csv"):
        raise OSError("mine")


def test_files_are_listed_with_their_sizes_in_however_many_folders(run_id: str) -> None:
    uri = mlflow.get_run(run_id).info.artifact_uri
    assert artifacts.list_files(uri) == {"data/a b.csv": 3, "deep/er/still.txt": 2}


def test_a_table_is_csv_with_a_header(store: Store) -> None:
    with mlflow.start_run() as run:
        artifacts.log_table([{"model": "mean, all", "rmse": 9.5}, {"model": "é", "rmse": 1}], "t")
    table = artifacts.read_bytes(run.info.run_id, "t")
    assert table == 'model,rmse\n"mean, all",9.5\né,1\n'.encode()


# --- on a server that keeps the files


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def remote(store: Store, mlflow_server: str, temp: Path, tmp_path: Path) -> Iterator[str]:
    """A run on a server, with a file, a booster and a model."""
    code = tmp_path / "model.py"
    code.write_text(MODEL)
    mlflow.set_tracking_uri(mlflow_server)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run() as run:
        mlflow.log_text("1,2", "data/train.csv")
        mlflow.log_text("trees", "boosters/a.ubj")
        mlflow.pyfunc.log_model(name="m", python_model=str(code), pip_requirements=["mlflow"])
    assert mlflow.get_run(run.info.run_id).info.artifact_uri.startswith("mlflow-artifacts:")
    assert list(temp.iterdir()) == []
    yield run.info.run_id
    assert list(temp.iterdir()) == []
    mlflow.set_tracking_uri(None)


def test_what_is_fetched_is_gone_once_it_was_read(remote: str, temp: Path) -> None:
    with artifacts.open_file(remote, "data/train.csv") as path:
        assert path.is_relative_to(temp)
        assert path.read_text() == "1,2"
    assert not path.exists()
    with artifacts.open_file(remote, "data") as folder:
        assert [file.name for file in folder.iterdir()] == ["train.csv"]
    assert not folder.exists()
    assert artifacts.read_text(remote, "data/train.csv") == "1,2"
    with pytest.raises(StorageError, match="has no artifact"):
        artifacts.read_text(remote, "data/valid.csv")


def test_hashing_boosters_leaves_nothing(remote: str) -> None:
    uri = mlflow.get_run(remote).info.artifact_uri
    assert artifacts.list_files(uri) == {"data/train.csv": 3, "boosters/a.ubj": 5}
    ((name, sha256),) = verify.hash_boosters(uri, mlflow.get_tracking_uri())
    assert (name, len(sha256)) == ("a.ubj", 64)


def assert_soon(is_so: Callable[[], bool]) -> None:
    """Fail unless a condition holds within 10 seconds, in which garbage may be collected."""
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)
        gc.collect()


def test_a_model_s_files_go_with_the_model(remote: str, temp: Path) -> None:
    (output,) = mlflow.get_run(remote).outputs.model_outputs
    before = set(temp.iterdir())
    for uri in (f"models:/{output.model_id}", f"runs:/{remote}/m"):
        model = models.load(uri)
        (folder,) = set(temp.iterdir()) - before
        assert folder.name.startswith("model-")
        assert list(model.predict(["a"])) == ["a"]
        del model
        assert_soon(lambda: set(temp.iterdir()) == before)
    with pytest.raises(StorageError, match="Cannot load model"):
        models.load(f"runs:/{remote}/nothing")


def test_a_model_s_files_are_removed_when_the_process_ends(
    remote: str, temp: Path, mlflow_server: str
) -> None:
    (output,) = mlflow.get_run(remote).outputs.model_outputs
    before = set(temp.iterdir())
    code = (
        "import os, sys; from pathlib import Path; from storage.tracking import models\n"
        "model = models.load(sys.argv[1])\n"
        "print(*(path.name for path in Path(os.environ['TMPDIR']).glob('model-*')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"models:/{output.model_id}"],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("model-")
    assert set(temp.iterdir()) == before
