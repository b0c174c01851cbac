"""Months from servers and object stores, including ones that misbehave."""

import errno
import gzip
import hashlib
import re
import socket
import sys
import threading
import traceback
from pathlib import Path

import fsspec
import pooch
import pyarrow as pa
import pytest

from storage import StorageError
from storage.data import cache as downloads_cache
from storage.data import downloads, months, sources
from storage.drivers import EXTRAS
from tests.storage.samples import CSV, NAME, make_parquet, one_line, read
from tests.storage.sources import (
    Answer,
    Handler,
    Server,
    cached_files,
    find,
    find_error,
    ok,
    stalled,
    status,
    truncated,
)

# --- http


def test_a_download_is_cached_and_then_needs_no_server(server: Server, cache: Path) -> None:
    body = make_parquet()
    server.will(ok(body), status(500))
    first, again = find(server.url), find(server.url + "/")
    assert first == again
    assert first.uri == f"{server.url}/{NAME}"
    assert first.sha256 == hashlib.sha256(body).hexdigest()
    assert first.path.is_relative_to(cache)
    assert len(server.requests) == 1


def test_the_tlc_is_a_server_like_any_other(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert months.TLC_URL.startswith("https://")
    monkeypatch.setattr(sources, "TLC_URL", server.url)
    server.will(ok(make_parquet()))
    assert find("tlc") == find(server.url)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_is_fetched_where_the_server_has_no_parquet(server: Server, suffix: str) -> None:
    name = f"green_tripdata_2021-01{suffix}"
    server.will(ok(gzip.compress(CSV) if suffix == ".csv.gz" else CSV), name=name)
    found = find(server.url)
    assert found.uri == f"{server.url}/{name}"
    assert read(found.path, "zone") == {"zone": ["7", "9"]}
    n_requests = len(server.requests)
    assert find(server.url) == found
    assert len(server.requests) == n_requests


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        (NAME, truncated(make_parquet())),
        (NAME, ok(make_parquet()[:-9])),
        (NAME, ok(b"XXXX" + make_parquet()[4:])),
        (NAME, ok(b"<html>,all is well</html>")),
        (NAME, ok(b"")),
        (NAME, status(500)),
        (NAME, status(429)),
        ("green_tripdata_2021-01.csv", truncated(CSV)),
        ("green_tripdata_2021-01.csv", ok(b"<!doctype html>\n")),
        ("green_tripdata_2021-01.csv", ok(b"")),
        ("green_tripdata_2021-01.csv.gz", ok(gzip.compress(CSV * 9999)[:-20])),
        ("green_tripdata_2021-01.csv.gz", ok(CSV)),
    ],
    ids=lambda value: value.__qualname__.partition(".")[0] if callable(value) else value[-10:],
)
def test_a_bad_download_is_retried_and_never_stays_in_the_cache(
    server: Server, cache: Path, naps: list[float], name: str, bad: Answer
) -> None:
    good = {".gz": gzip.compress(CSV), "csv": CSV}.get(name[-3:], make_parquet())
    server.will(bad, name=name)
    message = find_error(server.url)
    assert f"{server.url}/{name} in 4 attempts" in message
    assert naps == [1, 2, 3]
    assert cached_files(cache) == []
    server.will(bad, ok(good), name=name)
    found = find(server.url)
    assert found.path.read_bytes() == good
    assert cached_files(cache) == [name]
    assert naps == [1, 2, 3, 1]


def test_a_stalled_server_is_given_up_and_asked_again(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(downloads, "RETRIES", 0)
    server.will(stalled(make_parquet()), ok(make_parquet()))
    assert "in 1 attempts: ConnectionError" in find_error(server.url)
    assert cached_files(cache) == []
    assert find(server.url).path.read_bytes() == make_parquet()


@pytest.mark.parametrize("code", [403, 404])
def test_a_month_not_published_is_asked_for_once(
    server: Server, cache: Path, naps: list[float], code: int
) -> None:
    for suffix in sources.SUFFIXES:
        server.will(status(code), name=f"green_tripdata_2021-01{suffix}")
    message = find_error(server.url)
    assert f"No green trips in {server.url} for 2021-01: tried {NAME} (HTTP {code})" in message
    assert "two months late" in message
    assert len(server.requests) == 3
    assert naps == []
    assert cached_files(cache) == []
    server.will(ok(make_parquet()))
    assert find(server.url).uri == f"{server.url}/{NAME}"


def test_a_throttled_caller_of_the_tlc_is_not_told_that_a_month_is_not_published(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", waits.append)
    monkeypatch.setattr(sources, "TLC_URL", server.url)
    sure = "yellow_tripdata_2021-01.parquet"  # exists for sure, unlike months of younger taxis
    for name in (sure, *(f"green_tripdata_2031-05{suffix}" for suffix in sources.SUFFIXES)):
        server.will(status(403), name=name)
    for act in (find, months.locate):
        with pytest.raises(StorageError, match=r"refuses everything for now \(HTTP 403.*an hour"):
            act("tlc", month="2031-05") if act is find else act(
                "tlc", taxi="green", month="2031-05"
            )
    assert waits == [*downloads.BACK_OFF_S] * 2
    server.will(status(403), ok(make_parquet()), name=sure)  # refuses, then answers
    assert "two months late" in find_error("tlc", "2031-05")


def test_an_unreachable_server_is_one_line_and_its_traceback_tells_no_secret() -> None:
    with pytest.raises(StorageError) as caught:
        find("http://me:hush@127.0.0.1:1/trips?sig=token")
    url = f"http://127.0.0.1:1/trips/{NAME}"
    assert f"Cannot download {url} in 4 attempts: ConnectionError" in one_line(caught)
    errors = [line for line in traceback.format_exception(caught.value) if "Error: " in line]
    assert errors
    assert not re.search("hush|token", " ".join(errors))


@pytest.mark.parametrize(
    "error",
    [socket.gaierror(-2, "Name or service not known"), OSError(errno.ENETUNREACH, "unreachable")],
    ids=["no name", "no network"],
)
def test_without_a_connection_a_line_says_at_once_how_to_go_on(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(*address: object, **_: object) -> None:
        asked.append(address)
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    said = find_error("tlc")
    assert said.startswith(f"No connection to {months.TLC_URL}. Connect this machine, ")
    assert "-P source=simulated" in said
    assert len(asked) == 1
    assert not months.locate("tlc", taxi="green", month="2021-01").server_answers


def test_a_gzip_is_kept_as_the_server_keeps_it(server: Server) -> None:
    body = gzip.compress(CSV)

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        if "gzip" in handler.headers["Accept-Encoding"]:  # `requests` would then unpack it
            handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        handler.wfile.write(body)

    server.will(answer, name="green_tripdata_2021-01.csv.gz")
    assert find(server.url).path.read_bytes() == body


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Server) -> None:
    body = make_parquet()
    server.will(ok(body))
    path = find(server.url).path
    path.write_bytes(body[:-9])
    assert find(server.url).path.read_bytes() == body
    assert len(server.requests) == 2


def test_a_file_in_the_cache_that_cannot_be_read_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails for a moment, or missing permissions, say nothing about the content."""
    body = make_parquet()
    server.will(ok(body))
    path = find(server.url).path

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(pa, "input_stream", fail)
        assert f"Cannot read {path}: " in find_error(server.url)
    assert path.read_bytes() == body
    assert len(server.requests) == 1


def test_two_servers_do_not_share_a_cached_file(server: Server) -> None:
    server.will(ok(make_parquet()))
    server.script[f"/other/{NAME}"] = [ok(make_parquet(pa.array(["7", "9"])))]
    one, other = find(server.url), find(server.url.replace("/trips", "/other"))
    assert one.path != other.path
    assert one.sha256 != other.sha256


def test_many_downloads_at_once_leave_one_whole_file(server: Server, cache: Path) -> None:
    server.will(ok(make_parquet()))
    together, found = threading.Barrier(4), []

    def download() -> None:
        together.wait(10)
        found.append(find(server.url))

    threads = [threading.Thread(target=download) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert cached_files(cache) == [NAME]


def test_credentials_reach_the_server_but_no_message(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooch.get_logger(), "handlers", [caplog.handler])
    source = f"http://me:hush%40hush@{server.host}/trips/?sig=token"
    server.will(status(500), status(500), status(500), status(500), status(404), ok(make_parquet()))
    monkeypatch.setenv("TRIPS", source)
    messages = [find_error(source), find_error("env:TRIPS")]
    found = find("env:TRIPS")
    assert found.uri == f"{server.url}/{NAME}"
    assert {handler.path.partition("?")[2] for handler in server.requests} == {"sig=token"}
    assert all(handler.headers["Authorization"] for handler in server.requests)
    assert f"Downloading file '{NAME}' from '{server.url}/{NAME}'" in caplog.text
    seen = " ".join([*messages, found.uri, str(found.path), caplog.text])
    assert not re.search("hush|token|me:", seen)


def test_a_cache_that_cannot_be_written_is_named_with_its_setting(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.will(ok(make_parquet()))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TAXI_CACHE", str(tmp_path / "file" / "cache"))
    message = find_error(server.url)
    assert str(tmp_path / "file" / "cache") in message
    assert "TAXI_CACHE" in message


def test_the_cache_is_the_users_own_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_CACHE", "~/elsewhere")
    assert downloads_cache.cache_dir() == Path.home() / "elsewhere"
    monkeypatch.setenv("TAXI_CACHE", "")
    assert downloads_cache.cache_dir().name == "nyc-taxi"


# --- object stores


def test_an_object_is_cached_until_it_changes(
    memory: fsspec.AbstractFileSystem, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe(f"/trips/{NAME}", make_parquet())
    first = find("memory://trips/")
    assert first.uri == f"memory://trips/{NAME}"
    assert first.path.is_relative_to(cache)
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "get_file", lambda *_: pytest.fail("fetched twice"))
        assert find("memory://trips") == first
    changed = make_parquet(pa.array(["7", "9"]))
    memory.pipe(f"/trips/{NAME}", changed)
    assert find("memory://trips").path.read_bytes() == changed


def test_a_store_is_searched_for_csv_too(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/trips/green_tripdata_2021-01.csv.gz", gzip.compress(CSV))
    assert find("memory://trips").path.name == "green_tripdata_2021-01.csv.gz"


def test_a_store_without_the_month_says_so(memory: fsspec.AbstractFileSystem) -> None:
    assert f"No green trips in memory://trips for 2021-01: tried {NAME}" in find_error(
        "memory://trips"
    )


def test_a_damaged_object_never_stays_in_the_cache(
    memory: fsspec.AbstractFileSystem, cache: Path
) -> None:
    memory.pipe(f"/trips/{NAME}", make_parquet()[:-9])
    assert f"Cannot use /trips/{NAME}" in find_error("memory://trips")
    assert cached_files(cache) == []


def test_a_store_that_denies_access_is_one_line(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> str:
        raise PermissionError("Access\nDenied")

    monkeypatch.setattr(type(memory), "ukey", deny)
    assert "from memory://trips: Access Denied. Check your access" in find_error("memory://trips")


def test_each_store_of_objects_has_its_package_and_that_an_extra_of_its_name() -> None:
    stores = [name for name, kind in months.SOURCES.items() if kind is sources.ObjectStore]
    assert stores == [f"{scheme}://" for scheme in downloads.STORE_PACKAGES], "name its package"
    extras = {scheme: EXTRAS.get(name) for scheme, name in downloads.STORE_PACKAGES.items()}
    assert extras == {scheme: scheme for scheme in extras}, "storage/drivers.py names the extra"


@pytest.mark.parametrize(("scheme", "package"), downloads.STORE_PACKAGES.items())
def test_a_store_whose_package_is_missing_says_how_to_add_it(
    scheme: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # missing here even where it is installed
    message = find_error(f"{scheme}://key:secret@bucket/trips")
    assert f"Source {scheme}://bucket/trips needs the package {package}" in message
    assert f"make lock EXTRAS={scheme}" in message
