"""What an earlier process cached about a file equals what reading the file again gives."""

import hashlib
import json
from pathlib import Path

import pytest

from storage.repro import meanings

TEXT = b'''"""Told."""
from . import a


def f():
    """More."""
    import b.c  # why
'''


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(meanings, "_file", lambda: tmp_path / "cache" / "kept.json")
    meanings._cache.cache_clear()
    yield tmp_path / "cache" / "kept.json"
    meanings._cache.cache_clear()


def read_anew(package: tuple[str, ...] = ("taxi",)) -> meanings.Meaning:
    meanings._cache.cache_clear()
    return meanings.read_meaning(TEXT, package)


def test_a_meaning_is_kept_and_found_without_reading_the_syntax(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_anew()
    assert read.imports == ("taxi.a", "b.c")
    meanings.save_cache()
    monkeypatch.setattr("ast.parse", lambda _: pytest.fail("read again"))
    assert read_anew() == read


def test_in_another_package_the_same_text_imports_other_files(kept: Path) -> None:
    read_anew()
    meanings.save_cache()
    assert read_anew(("steps", "main")).imports == ("steps.main.a", "b.c")


@pytest.mark.parametrize("damage", [b"", b"{}", b"0" * 64 + b"\n{}", b"\xff\n{}"])
def test_a_damaged_file_is_read_as_none_and_written_again(kept: Path, damage: bytes) -> None:
    read = read_anew()
    kept.parent.mkdir()
    kept.write_bytes(damage)
    assert read_anew() == read
    meanings.save_cache()
    assert list(meanings.read_cache(kept).values()) == [read]


def test_where_nothing_can_be_written_nothing_is_lost(kept: Path) -> None:
    kept.parent.write_text("a file")
    read = read_anew()
    meanings.save_cache()
    assert read_anew() == read


def test_docstrings_and_comments_mean_nothing_and_what_runs_does(kept: Path) -> None:
    read = read_anew()
    same = TEXT.replace(b"Told", b"Said").replace(b"More", b"Less").replace(b"# why", b"")
    assert meanings.read_meaning(same, ("taxi",)) == read
    assert meanings.read_meaning(TEXT + b"f()\n", ("taxi",)).sha256 != read.sha256


def test_what_another_process_has_kept_meanwhile_stays(kept: Path) -> None:
    meanings._cache()  # empty, so far
    kept.parent.mkdir()
    other = meanings.Meaning("0" * 64, ())
    text = json.dumps({"other": other}).encode()
    kept.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    mine = meanings.read_meaning(TEXT, ("taxi",))
    meanings.save_cache()
    assert list(meanings.read_cache(kept).values()) == [other, mine]


def test_a_disk_that_is_full_keeps_no_half(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Path, content: bytes) -> None:
        path.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    read_anew()
    meanings.save_cache()
    assert list(kept.parent.iterdir()) == []


NESTED = b"""
def f(width, *rest: int, **named):
    x = f"{', '.join(rest):<{width}} {width!r} {'a'}" 'b'
    return x[1:], x[:1], -1.5e3, {**named}, lambda: (yield), ...
"""


def test_every_python_reads_the_same_meaning(kept: Path) -> None:
    # the same with 3.11.7, 3.12.1 and 3.13.0, whose `ast.unparse` and `ast.dump` differ
    meant = "e39573224a6e7d31594ff2c4c754070f0cb6f2c595576fb87ac6eb46134afc06"
    assert meanings.read_meaning(NESTED, ()).sha256 == meant


@pytest.mark.parametrize("text", [b"x[1:]", b"x[:1]", b"x[1]", b"x[None]", b"x['']", b"x[f'']"])
def test_what_is_left_out_makes_no_two_meanings_one(kept: Path, text: bytes) -> None:
    others = {b"x[1:]", b"x[:1]", b"x[1]", b"x[None]", b"x['']", b"x[f'']"} - {text}
    read = {meanings.read_meaning(one, ()).sha256 for one in others}
    assert meanings.read_meaning(text, ()).sha256 not in read
