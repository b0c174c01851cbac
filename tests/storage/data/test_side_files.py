"""Files beside the months: found, cached and hashed as months are, and allowed to be missing."""

import hashlib
import io
import zipfile
from pathlib import Path

import fsspec
import pytest

from storage import StorageError
from storage.data import months, sources
from storage.data.months import find_side_files, locate_side_files
from tests.storage.samples import one_line
from tests.storage.sources import Server, cached_files, make_folder, ok, status, truncated

TABLE, SHAPES = "zones.csv", "zones.zip"
NAMES = (TABLE, SHAPES)
CSV = b"id,name\n1,Newark\n"


def make_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as files:
        files.writestr(zipfile.ZipInfo("shapes.shp"), b"x" * 500)  # always with the same date
    return content.getvalue()


def test_files_in_a_folder_are_used_where_they_lie(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "months", **{TABLE: CSV})
    found = find_side_files(str(folder), NAMES)
    uri, digest = (folder / TABLE).as_uri(), hashlib.sha256(CSV).hexdigest()
    assert found == {TABLE: (TABLE, uri, folder / TABLE, digest)}
    assert locate_side_files(str(folder), NAMES) == [
        (TABLE, uri, False, len(CSV), True, folder / TABLE)
    ]


def test_nothing_lies_beside_simulated_months() -> None:
    assert find_side_files("simulated:7", NAMES) == {}
    assert locate_side_files("simulated:7", NAMES) == []


def test_the_seed_of_a_simulation_is_known() -> None:
    assert months.simulated_seed("simulated:7:9") == 9
    assert months.simulated_seed("simulated") == sources.DEFAULT_SEED
    assert months.simulated_seed("/somewhere") is None


def test_files_of_a_server_are_cached_and_then_need_no_server(server: Server, cache: Path) -> None:
    server.will(ok(CSV), name=TABLE)
    server.will(ok(make_zip()), name=SHAPES)
    located = locate_side_files(server.url, NAMES)
    assert located[0] == (TABLE, f"{server.url}/{TABLE}", True, len(CSV), True, None)
    assert cached_files(cache) == []
    found = find_side_files(server.url, NAMES)
    assert found[SHAPES].path.read_bytes() == make_zip()
    assert found[SHAPES].path.is_relative_to(cache)
    n_asked = len(server.requests)
    assert find_side_files(f"{server.url}/", NAMES) == found
    assert not any(place.needs_download for place in locate_side_files(server.url, NAMES))
    assert len(server.requests) == n_asked


def test_the_tlcs_lie_in_another_folder_of_its_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "TLC_URL", server.url)
    server.script[f"/misc/{TABLE}"] = [ok(CSV)]
    found = find_side_files("tlc", NAMES)
    assert found[TABLE].uri == f"http://{server.host}/misc/{TABLE}"
    assert list(found) == [TABLE]


@pytest.mark.parametrize("code", [403, 404])
def test_a_server_without_the_files_has_none(server: Server, code: int) -> None:
    server.will(status(code), name=TABLE)
    assert find_side_files(server.url, NAMES) == {}
    assert locate_side_files(server.url, NAMES) == []


def test_a_server_that_nobody_reaches_has_none_and_is_not_waited_for(naps: list[float]) -> None:
    assert find_side_files("http://127.0.0.1:1/trips", NAMES) == {}
    assert naps == []


def test_a_cut_zip_never_stays_in_the_cache(server: Server, cache: Path) -> None:
    server.will(ok(make_zip()[:-30]), name=SHAPES)
    with pytest.raises(StorageError, match=r"zones\.zip is not a whole zip") as caught:
        find_side_files(server.url, NAMES)
    assert one_line(caught)
    assert cached_files(cache) == []


def test_a_damaged_zip_in_the_cache_is_fetched_again(server: Server) -> None:
    server.will(ok(make_zip()), name=SHAPES)
    path = find_side_files(server.url, [SHAPES])[SHAPES].path
    path.write_bytes(make_zip()[:-30])
    assert locate_side_files(server.url, [SHAPES])[0].needs_download
    assert find_side_files(server.url, [SHAPES])[SHAPES].path.read_bytes() == make_zip()


def test_a_download_that_breaks_off_is_tried_again(server: Server, naps: list[float]) -> None:
    body = make_zip()
    server.will(ok(body), truncated(body), ok(body), name=SHAPES)
    assert find_side_files(server.url, [SHAPES])[SHAPES].path.read_bytes() == body
    assert len(naps) == 1


def test_an_object_is_cached_until_it_changes(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe(f"/trips/{TABLE}", CSV)
    first = find_side_files("memory://trips", NAMES)
    assert first[TABLE].uri == f"memory://trips/{TABLE}"
    assert list(first) == [TABLE]
    memory.pipe(f"/trips/{TABLE}", CSV + b"2,Bronx\n")
    assert [place.needs_download for place in locate_side_files("memory://trips", NAMES)] == [True]
    assert find_side_files("memory://trips", NAMES)[TABLE].sha256 != first[TABLE].sha256


def test_an_object_that_is_forbidden_is_not_there(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> str:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(memory), "ukey", deny)
    assert find_side_files("memory://trips", NAMES) == {}


def test_a_source_that_is_none_is_refused_as_for_months() -> None:
    with pytest.raises(StorageError, match="is no folder"):
        find_side_files("/no/such/folder", NAMES)
