"""Small files that machines share: complete or missing, wherever they are."""

from pathlib import Path

import pytest

from storage import StorageError
from storage.data.objects import check_object_writable, read_object, write_object


def test_an_object_is_read_as_it_was_written_and_none_where_there_is_none(tmp_path: Path) -> None:
    for uri in (f"{tmp_path}/a.json", f"file://{tmp_path}/b c.json", "memory://objects/c.json"):
        assert read_object(uri) is None
        write_object(uri, b"one")
        write_object(uri, b"two")
        assert read_object(uri) == b"two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b c.json"]


def test_what_cannot_be_read_or_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Cannot read"):
        read_object(str(tmp_path))
    with pytest.raises(StorageError, match="Cannot write"):
        write_object(f"{tmp_path}/file/live.json", b"one")
    with pytest.raises(StorageError, match="Cannot read nonsense://host/a"):
        read_object("nonsense://user:secret@host/a?key=1")


def test_whether_a_file_can_be_written_is_seen_without_writing_it(tmp_path: Path) -> None:
    check_object_writable(f"{tmp_path}/new/live.json")
    check_object_writable("nonsense://host/a")
    assert list((tmp_path / "new").iterdir()) == []
    for path in (tmp_path / "new", tmp_path / "file" / "live.json"):
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="Cannot write"):
            check_object_writable(str(path))


def test_what_is_on_the_web_is_not_written() -> None:
    with pytest.raises(StorageError, match=r"^Cannot write HTTPS://host/a: what is on the web"):
        check_object_writable("HTTPS://user:secret@host/a")


def test_a_file_of_another_machine_is_none_of_the_folder_here() -> None:
    for use in (check_object_writable, read_object):
        with pytest.raises(StorageError, match=r"^file://host/live\.json is no file of"):
            use("file://host/live.json")
