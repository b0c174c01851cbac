"""Where a month is, before anybody fetches it."""

from pathlib import Path

import pytest

from storage import StorageError
from storage.data import months
from tests.storage.samples import NAME, make_parquet
from tests.storage.sources import Server, cached_files, find, make_folder, ok, status


def look(source: object) -> months.MonthLocation:
    return months.look(str(source), taxi="green", month="2021-01")


def test_a_month_in_a_folder_is_here(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "months", **{NAME: b"12345"})
    assert look(folder) == ("2021-01", (folder / NAME).as_uri(), False, 5)


def test_a_simulated_month_needs_no_file() -> None:
    assert look("simulated:7") == ("2021-01", "simulated:7:42", False, None)
    assert months.identify("simulated:7", taxi="green", month="2021-01") == "simulated:7:42"


def test_a_month_on_a_server_is_asked_for_its_size_and_not_fetched(
    server: Server, cache: Path
) -> None:
    content = make_parquet()
    server.will(ok(content))
    assert look(server.url) == ("2021-01", f"{server.url}/{NAME}", True, len(content))
    assert [request.command for request in server.requests] == ["HEAD"]
    assert cached_files(cache) == []


def test_a_month_in_the_cache_is_here_and_nobody_is_asked(server: Server) -> None:
    content = make_parquet()
    server.will(ok(content))
    find(server.url)
    n_asked = len(server.requests)
    assert look(server.url) == ("2021-01", f"{server.url}/{NAME}", False, len(content))
    assert len(server.requests) == n_asked


def test_a_month_that_no_server_has_is_refused_as_a_run_would(server: Server) -> None:
    with pytest.raises(StorageError, match=r"No green trips in .* for 2021-01"):
        look(server.url)


def test_a_size_that_nobody_tells_is_unknown(server: Server) -> None:
    server.will(status(503))
    assert look(server.url) == ("2021-01", f"{server.url}/{NAME}", True, None)
    assert look("http://127.0.0.1:1/trips") == (
        "2021-01",
        f"http://127.0.0.1:1/trips/{NAME}",
        True,
        None,
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
