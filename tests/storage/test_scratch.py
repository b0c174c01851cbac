from pathlib import Path
from types import SimpleNamespace

import pytest

from storage import StorageError
from storage.scratch import scratch_folder


def test_a_scratch_folder_is_gone_when_it_is_left_with_all_that_it_holds() -> None:
    with scratch_folder(1) as folder:
        Path(folder, "bins").write_text("much")
    assert not Path(folder).exists()


def test_nothing_needs_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder(0) as folder:
        assert folder == ""
        assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**30))
    told = f"{tmp_path} has 1.0 GiB left, and it takes 1.5 to train on so many trips. Make room"
    with pytest.raises(StorageError, match=told), scratch_folder(3 << 29):
        pytest.fail("it went on")
    assert list(tmp_path.iterdir()) == []
