"""Where a month is, before it is fetched."""

import errno
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from storage import StorageError
from storage.data import months
from tests.storage.samples import NAME, make_parquet
from tests.storage.sources import Handler, Server, cached_files, find, make_folder, ok, status


def locate(source: object) -> months.MonthLocation:
    return months.locate(str(source), taxi="green", month="2021-01")


def test_a_month_in_a_folder_is_here(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "months", **{NAME: b"12345"})
    assert locate(folder) == ("2021-01", (folder / NAME).as_uri(), False, 5, True, folder / NAME)


def test_a_simulated_month_needs_no_file() -> None:
    assert locate("simulated:7")[:5] == ("2021-01", "simulated:7:42", False, None, True)
    assert months.identify("simulated:7", taxi="green", month="2021-01") == "simulated:7:42"


def test_a_month_on_a_server_is_asked_for_its_size_and_not_fetched(
    server: Server, cache: Path
) -> None:
    content = make_parquet()
    server.will(ok(content))
    assert locate(server.url)[:5] == ("2021-01", f"{server.url}/{NAME}", True, len(content), True)
    assert [request.command for request in server.requests] == ["HEAD"]
    assert cached_files(cache) == []


def test_a_month_that_has_moved_is_asked_for_its_size_where_it_is_now(server: Server) -> None:
    content = make_parquet()

    def moved(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/trips/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.will(moved)
    server.will(ok(content), name="elsewhere")
    assert locate(server.url)[:5] == ("2021-01", f"{server.url}/{NAME}", True, len(content), True)


def test_a_month_in_the_cache_is_here_and_nobody_is_asked(server: Server) -> None:
    content = make_parquet()
    server.will(ok(content))
    path = find(server.url).path
    n_asked = len(server.requests)
    assert locate(server.url)[:5] == ("2021-01", f"{server.url}/{NAME}", False, len(content), True)
    assert len(server.requests) == n_asked
    assert locate(server.url).path == path


def test_a_month_that_no_server_has_is_refused_as_a_run_would(server: Server) -> None:
    with pytest.raises(StorageError, match=r"No green trips in .* for 2021-01"):
        locate(server.url)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "none"),
        ([f"green_tripdata_2020-{n:02}.parquet" for n in (1, 2, 3)], "2020-03, 2020-02, 2020-01"),
        (
            [f"green_tripdata_2020-{n:02}.parquet" for n in range(1, 13)]
            + ["Green_Tripdata_2020-12.csv", "yellow_tripdata_2021-02.parquet"],
            "2020-12, 2020-11, 2020-10, 2020-09, 2020-08 and 7 more",
        ),
        (
            ["yellow_tripdata_2021-02.csv", "fhv_tripdata_2021-03.csv"],
            "fhv 2021-03, yellow 2021-02",
        ),
    ],
    ids=["none", "few", "many", "other taxis"],
)
def test_where_a_folder_has_no_such_month_its_latest_are_named(
    tmp_path: Path, names: list[str], said: str
) -> None:
    folder = make_folder(tmp_path / "months", **dict.fromkeys(names, b"12345"))
    with pytest.raises(StorageError, match=rf"Months there: {said}\. Check the month"):
        locate(folder)


def test_a_size_that_nobody_tells_is_unknown(server: Server) -> None:
    server.will(status(503))
    assert locate(server.url)[:5] == ("2021-01", f"{server.url}/{NAME}", True, None, True)
    assert locate("http://127.0.0.1:1/trips")[:5] == (
        "2021-01",
        f"http://127.0.0.1:1/trips/{NAME}",
        True,
        None,
        False,
    )


def test_a_month_is_known_by_its_bytes_wherever_they_lie(server: Server, tmp_path: Path) -> None:
    content = make_parquet()
    server.will(ok(content))
    folder = make_folder(tmp_path / "months", **{NAME: content})
    here, there = (
        months.identify(str(source), taxi="green", month="2021-01")
        for source in (folder, server.url)
    )
    assert here == there == find(folder).sha256 == find(folder).identity


# --- looking never writes


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", [b"", b"half of it", make_parquet()[:-9]])
def test_a_broken_month_in_the_cache_must_come_and_stays_where_it_is(
    server: Server, cache: Path, content: bytes
) -> None:
    whole = make_parquet()
    server.will(ok(whole))
    find(server.url).path.write_bytes(content)
    before = snapshot(cache)
    assert locate(server.url)[:5] == ("2021-01", f"{server.url}/{NAME}", True, len(whole), True)
    assert snapshot(cache) == before
    assert find(server.url).path.read_bytes() == whole


@pytest.mark.parametrize(
    "error",
    [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EIO, "Input/output error")],
    ids=["permission", "disk"],
)
def test_a_month_in_the_cache_that_cannot_be_read_is_refused_and_kept(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    server.will(ok(make_parquet()))
    find(server.url)
    before = snapshot(cache)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(pa, "input_stream", fail)
        with pytest.raises(StorageError, match=rf"Cannot read .*{NAME}: .*{error.strerror}"):
            locate(server.url)
    assert snapshot(cache) == before
    assert not locate(server.url).needs_download


def test_a_broken_object_in_the_cache_must_come_and_stays_where_it_is(
    cache: Path, memory: fsspec.AbstractFileSystem
) -> None:
    memory.pipe(f"/trips/{NAME}", make_parquet())
    assert (locate("memory://trips").needs_download, locate("memory://trips").path) == (True, None)
    path = find("memory://trips").path
    assert (locate("memory://trips").needs_download, locate("memory://trips").path) == (False, path)
    path.write_bytes(b"half of it")
    before = snapshot(cache)
    where = locate("memory://trips")
    assert where[:5] == ("2021-01", f"memory://trips/{NAME}", True, len(make_parquet()), True)
    assert snapshot(cache) == before
