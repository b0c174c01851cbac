"""What is refused for export or import, before anything is written."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from storage import StorageError, UserError
from storage.repro.transfer import __main__ as transfer
from storage.repro.transfer import export_file
from storage.repro.transfer.export_file import check_folder, check_path, opened
from storage.tracking import models, tags
from tests.storage.repro.transfers import MODEL, Exported, below, everything, import_here, step
from tests.stores import Store


def refusal(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        transfer.main([*words])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


Change = Callable[[Path], None]


def rewrite(change: Callable[[dict[str, bytes]], None], comment: bool = True) -> Change:
    """Return a function that repacks a zip with changed members."""

    def apply(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            members, vouched = {n: archive.read(n) for n in archive.namelist()}, archive.comment
        change(members)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            archive.comment = vouched

    return apply


def edit(old: str, new: str, *, vouch: bool = True) -> Change:
    """Return a function that edits the manifest and, with `vouch`, updates its digest."""

    def apply(path: Path) -> None:
        def change(members: dict[str, bytes]) -> None:
            text = members["manifest.json"].decode()
            assert old in text
            members["manifest.json"] = text.replace(old, new).encode()

        rewrite(change)(path)
        if vouch:
            with zipfile.ZipFile(path, "a") as archive:
                text = archive.read("manifest.json")
                digest = export_file.hashlib.sha256(text).hexdigest()
                archive.comment = f"{export_file.DIGEST_COMMENT}{digest}".encode()

    return apply


def flip_an_artifact(members: dict[str, bytes]) -> None:
    name = next(name for name in members if members[name] == b"trips")
    members[name] = b"tripz"


def add(name: str, content: bytes = b"") -> Change:
    return rewrite(lambda members: members.update({name: content}))


def link(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(f"files/{'0' * 64}")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")


def put_in_twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("manifest.json", archive.read("manifest.json"))


BAD = {
    "a byte of an artifact": (rewrite(flip_an_artifact), "data/train.parquet has other bytes"),
    "the manifest": (edit('"value": 5.5', '"value": 4.5', vouch=False), "manifest.json was edited"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "its end is cut off"),
    "half": (
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "its end is cut off",
    ),
    "a file more": (add("files/" + "1" * 64), "names other files than it holds"),
    "a file less": (
        rewrite(lambda members: members.pop(next(iter(members)))),
        "names other files than it holds",
    ),
    "a size more": (
        edit('"sizes": {', f'"sizes": {{"{"3" * 64}": 1,'),
        "names other files than it holds",
    ),
    "a name twice": (put_in_twice, "it holds 'manifest.json', which no export does"),
    "a path upwards": (add("../x"), "it holds '../x', which no export does"),
    "an absolute path": (add("/tmp/x"), "it holds '/tmp/x'"),
    "a link": (link, "which no export does"),
    "a bomb": (add("files/" + "2" * 64, bytes(20_000_000)), "it would unpack to 20,"),
    "a text": (lambda path: path.write_text("run,rmse"), "is no export of a pipeline"),
    "empty": (lambda path: path.write_bytes(b""), "is no export of a pipeline"),
    "another zip": (
        rewrite(lambda members: members.pop("manifest.json")),
        "is no export of a pipeline: it has no manifest.json",
    ),
    "a newer format": (
        edit('"format": 1', '"format": 2'),
        "is of format 2, and this version of the project reads up to 1",
    ),
    "an artifact upwards": (
        edit('"data/train.parquet"', '"../train.parquet"'),
        "'../train.parquet' is no artifact's name",
    ),
    "code that was compiled": (
        edit('"data/train.parquet"', '"__pycache__/a.pyc"'),
        "'__pycache__/a.pyc' is no artifact's name",
    ),
    "a field more": (edit('"format": 1', '"format": 1, "more": 1'), "more: Extra inputs"),
    "a field less": (edit('"format": 1', '"store": ""'), "manifest.json, format: Field required"),
    "no JSON": (edit('"format": 1', '"format": 1 1'), "manifest.json, : Invalid JSON"),
    "gone": (lambda path: path.unlink(), "cannot be read: No such file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_not_what_was_exported_is_one_line_and_no_store_is_touched(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(export_file, "EXTRA_BYTES", 1_000_000)  # so that a small bomb suffices
    change, said = BAD[kind]
    path = tmp_path / "pipeline.zip"
    shutil.copy(exported.path, path)
    change(path)
    assert said in refusal("import", str(path), capsys=capsys)
    assert {*tmp_path.iterdir()} <= {path}


def test_what_a_pipeline_packs_to_is_no_bomb_however_much_it_is(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_file, "EXTRA_BYTES", 0)
    with opened(exported.path) as file:
        assert sum(file.manifest.sizes.values()) > exported.path.stat().st_size / 10


def test_a_file_older_than_any_zip_is_exported(tmp_path: Path) -> None:
    """As of a container's image, or of a store that keeps no times."""
    old = tmp_path / "old"
    old.write_text("trips")
    os.utime(old, (0, 0))
    with export_file.writing(tmp_path / "x.zip") as writer:
        name = f"files/{writer.add(old)}"
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.read(name) == b"trips"


def test_no_byte_of_a_file_can_change_what_is_imported(exported: Exported, tmp_path: Path) -> None:
    whole, path = exported.path.read_bytes(), tmp_path / "pipeline.zip"
    with opened(exported.path) as file:
        manifest = file.manifest
    n_refused = 0
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            with opened(path) as file:
                assert file.manifest == manifest  # the byte did not matter: a date, for example
        except UserError:
            n_refused += 1
    assert n_refused > len(range(0, len(whole), 37)) / 2


@pytest.mark.parametrize(
    "path",
    ["", "/a", "../a", "a/../b", "a//b", "./a", "a\\b", "a\0", "a/__pycache__/b", "a/", "..a"],
)
def test_no_name_of_an_artifact_leads_out_of_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match="is no artifact's name"):
        check_path(path)
    assert check_path("data/été 1.parquet") == "data/été 1.parquet"


def test_no_name_is_a_file_and_a_folder() -> None:
    with pytest.raises(ValueError, match="'a/b' is a file and a folder"):
        check_folder({"a/b": "1", "a/b/c": "2"})


def test_a_run_that_cannot_be_exported_is_one_line_and_leaves_no_file(
    store: Store, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.zip"
    unknown = "0" * 32
    assert f"No run '{unknown}' in the store {store.uri}" in refusal(
        "export", unknown, str(path), capsys=capsys
    )
    with below("by hand", {}) as run_id:
        mlflow.log_metric("rmse", 1)
    assert "is of no step of this project" in refusal("export", run_id, str(path), capsys=capsys)
    with step("main") as running:
        said = refusal("export", running, str(path), capsys=capsys)
        assert f"Run {running} of main is still RUNNING. Wait for it" in said
        with step("hpo") as below_it:
            pass
    MlflowClient().update_run(below_it, "RUNNING")
    assert f"Run {below_it} of hpo is still" in refusal("export", running, str(path), capsys=capsys)
    MlflowClient().update_run(below_it, "FINISHED")
    MlflowClient().delete_run(running)
    assert "is deleted. Run `mlflow runs restore" in refusal(
        "export", running, str(path), capsys=capsys
    )
    assert [*tmp_path.iterdir()] == []
    again = refusal("export", exported.run_id, str(exported.path), capsys=capsys)
    assert again.endswith("is there already. Pass another FILE, or remove it.")
    for words in (["export"], ["export", "", "x"], ["import", ""], ["import", "a", "b"]):
        assert "Name the " in refusal(*words, capsys=capsys)


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("no answer"),
        PermissionError(13, "Permission denied", "/store/data/train.parquet"),
    ],
)
def test_what_the_store_does_not_give_is_no_fault_of_the_file_that_is_written(
    error: OSError, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), export_file.writing(tmp_path / "x.zip"):
        raise error
    assert [*tmp_path.iterdir()] == []


def test_no_room_and_no_right_to_write_a_file_is_one_line(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(28, "No space left on device")
    with patch.object(zipfile.ZipFile, "write", side_effect=full):
        said = refusal("export", exported.run_id, str(tmp_path / "x.zip"), capsys=capsys)
    assert "cannot be written: No space left on device. Pass a FILE where there is room" in said
    nowhere = refusal("export", exported.run_id, str(tmp_path / "no" / "x"), capsys=capsys)
    assert "cannot be written: No such file or directory" in nowhere
    assert [*tmp_path.iterdir()] == []


def test_a_server_that_refuses_a_file_is_no_disk_that_does(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = requests.Response()
    answer.status_code, answer.url, answer._content = 403, "http://127.0.0.1/api", b"{}"
    no = requests.HTTPError("403 Client Error: Forbidden", response=answer)
    with patch("storage.tracking.artifacts.get_artifact_repository", side_effect=no):
        said = refusal("export", exported.run_id, str(tmp_path / "x.zip"), capsys=capsys)
    assert "403" in said
    assert "Pass a FILE" not in said


def test_a_model_that_was_deleted_is_named(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = MlflowException("Logged model with ID m-1 not found", RESOURCE_DOES_NOT_EXIST)
    with patch.object(MlflowClient, "get_logged_model", side_effect=gone):
        said = refusal("export", exported.run_id, str(tmp_path / "x.zip"), capsys=capsys)
    assert " was deleted since. Run the pipeline again." in said


def test_a_version_that_has_lost_its_files_is_exported_to_nobody(
    exported: Exported, other: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_here(exported.path, capsys)
    found = everything()
    (model,), run = found.models, found.runs[exported.run_id]
    shutil.rmtree(model.artifact_location.removeprefix("file://"))
    path = tmp_path / "lost.zip"
    said = refusal("export", run.info.run_id, str(path), capsys=capsys)
    assert f"{MODEL} version 1 has lost its files here, so nobody could load it there. " in said
    assert not path.exists()
    with pytest.raises(StorageError, match=r"its files are lost\. Import an export of its"):
        models.load(f"models:/{MODEL}/1")


def test_no_room_here_for_what_is_imported_is_one_line(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(28, "No space left on device", "/tmp/x")
    with patch("shutil.copyfileobj", side_effect=full):
        said = refusal("import", str(exported.path), capsys=capsys)
    assert "No space left on device: /tmp/x. Make room there" in said
    assert everything().versions == []


def test_who_may_not_write_here_is_told_so_in_one_line(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    denied = RestException({"error_code": "PERMISSION_DENIED", "message": "Permission denied"})
    with patch.object(MlflowClient, "create_run", side_effect=denied):
        said = refusal("import", str(exported.path), capsys=capsys)
    assert said.startswith("import: The server refuses (PERMISSION_DENIED: Permission denied).")
    assert "Ask for the permission" in said


def test_a_version_of_another_taxi_than_the_champion_here_is_refused_before_anything_is_written(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient()
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, "nowhere", tags={str(tags.TAXI): "yellow"})
    client.set_registered_model_alias(MODEL, "champion", "1")
    said = refusal("import", str(exported.path), capsys=capsys)
    assert f"{MODEL} is a model of yellow trips here: version 1, its champion, is. " in said
    assert "The file's version 1 is of green ones." in said
    assert everything().counts() == (0, 0, 1, 0)
