"""Months from every kind of source, and what happens when a source misbehaves."""

import gzip
import hashlib
import os
import re
import subprocess
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pooch
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import StorageError, files, months
from tests.storage.samples import CSV, NAME, make_parquet, one_line, read

DATA = Path(os.environ.get("TAXI_DATA") or Path(__file__).parents[2].parent / "shared" / "data")


def make_folder(folder: Path, **files: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def no_simulation(month: str, n_trips: int, seed: int) -> Iterator[pa.RecordBatch]:
    raise AssertionError("a simulation nobody asked for")


def simulate_two_batches(month: str, n_trips: int, seed: int) -> Iterator[pa.RecordBatch]:
    for part in range(2):
        zones = [int(month[-2:]) + seed + part] * n_trips
        yield pa.record_batch({"zone": pa.array(zones, pa.int64())})


def find(source: object, month: str = "2021-01", **options: object) -> months.MonthFile:
    given = {"taxi": "green", "work_dir": Path("nowhere"), "simulate": no_simulation}
    return months.find(str(source), month=month, **{**given, **options})


def find_error(source: object, month: str = "2021-01", **options: object) -> str:
    with pytest.raises(StorageError) as caught:
        find(source, month, **options)
    return one_line(caught)


def cached_files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


# --- a server that misbehaves as told

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests.append(self)
        answers = self.server.script[self.path.split("?")[0]]
        answer = answers.pop(0) if len(answers) > 1 else answers[0] if answers else status(404)
        answer(self)

    def begin(self, code: int, n_bytes: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(n_bytes))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def ok(body: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin(200, len(body))
        handler.wfile.write(body)

    return answer


def status(code: int) -> Answer:
    return lambda handler: handler.begin(code, 0)


def truncated(body: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin(200, len(body))
        handler.wfile.write(body[: len(body) // 2])

    return answer


def stalled(body: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin(200, len(body))
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        handler.server.closing.wait(10)

    return answer


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: dict[str, list[Answer]] = defaultdict(list)
        self.requests: list[Handler] = []
        self.closing = threading.Event()
        self.host = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.host}/trips"

    def will(self, *answers: Answer, name: str = NAME) -> None:
        self.script[f"/trips/{name}"] = list(answers)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAXI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=taken.append))
    return taken


# --- months as text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-01", ["2021-01"]),
        ("2021-03,2021-01", ["2021-03", "2021-01"]),
        ("2020-11..2021-02", ["2020-11", "2020-12", "2021-01", "2021-02"]),
        ("2021-05..2021-05", ["2021-05"]),
        ("2021-06, 2021-01 .. 2021-02 ,2020-12", ["2021-06", "2021-01", "2021-02", "2020-12"]),
        ("", []),
        ("  ", []),
    ],
)
def test_months_are_read_in_the_order_given(text: str, expected: list[str]) -> None:
    assert months.parse_months(text) == expected


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("2021-13", "'2021-13'"),
        ("2021-00", "'2021-00'"),
        ("2021-1", "'2021-1'"),
        ("january", "'january'"),
        ("2021-01,", "''"),
        ("2021-01..", "''"),
        ("2021-01..2021-02..2021-03", "'2021-02..2021-03'"),
        ("2021-01-01", "'2021-01-01'"),
        ("٢٠٢١-٠١", "'٢٠٢١-٠١'"),  # noqa: RUF001
    ],
)
def test_text_that_is_no_month_is_refused_by_name(text: str, seen: str) -> None:
    with pytest.raises(StorageError) as caught:
        months.parse_months(text)
    assert one_line(caught).startswith(f"{seen} in {text!r} is not a month. Type YYYY-MM")


def test_a_backwards_range_is_refused_with_the_range_to_type() -> None:
    with pytest.raises(StorageError, match=r"'2021-06\.\.2021-01' runs backwards.*2021-01\.\.2021"):
        months.parse_months("2021-06..2021-01")


@pytest.mark.parametrize("text", ["2021-02,2021-02", "2021-01..2021-03,2021-02"])
def test_overlapping_months_are_refused(text: str) -> None:
    with pytest.raises(StorageError, match="2021-02 is given twice"):
        months.parse_months(text)


@pytest.mark.parametrize(("month", "after"), [("2021-01", "2021-02"), ("2020-12", "2021-01")])
def test_next_month_crosses_the_year(month: str, after: str) -> None:
    assert months.next_month(month) == after


# --- folders


def test_a_month_in_a_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    body = make_parquet()
    folder = make_folder(tmp_path / "data", **{NAME: body})
    found = find(folder)
    assert found == months.MonthFile(
        "2021-01",
        (folder / NAME).as_uri(),
        folder / NAME,
        hashlib.sha256(body).hexdigest(),
        len(body),
    )


def test_parquet_wins_over_csv_and_the_taxi_tells_files_apart(tmp_path: Path) -> None:
    names = ["green_tripdata_2021-01.csv.gz", "green_tripdata_2021-01.csv", NAME]
    folder = tmp_path / "data"
    make_folder(folder, **{"yellow_tripdata_2021-01.parquet": b"another"})
    for name in names:  # from the least to the most wanted
        make_folder(folder, **{name: b"x"})
        assert find(folder).path.name == name
    assert find(folder, taxi="yellow").path.name == "yellow_tripdata_2021-01.parquet"


def test_a_file_uri_names_a_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "my data", **{NAME: make_parquet()})
    assert "%20" in folder.as_uri()
    assert find(folder.as_uri()) == find(folder)


def test_home_and_relative_folders_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "data", **{NAME: make_parquet()})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert find("~/data") == find("data") == find("./data") == find(folder)


def test_a_missing_month_names_the_folder_the_files_tried_and_those_there(tmp_path: Path) -> None:
    there = {f"green_tripdata_2023-{month:02d}.parquet": b"" for month in range(1, 8)}
    message = find_error(make_folder(tmp_path / "data", **there))
    for seen in (str(tmp_path / "data"), "2021-01", NAME, "green_tripdata_2021-01.csv.gz"):
        assert seen in message
    assert "green_tripdata_2023-05.parquet, ..." in message
    assert "2023-06" not in message


def test_a_missing_relative_folder_hints_at_absolute_paths() -> None:
    message = find_error("no/such/folder")
    assert "'no/such/folder'" in message
    assert "pass an absolute path when running from a git URL" in message


@pytest.mark.parametrize("source", ["ftp://me:secret@host/trips", "tcl", "tlc:2021", "", " "])
def test_an_unknown_source_is_answered_with_the_known_ones(source: str) -> None:
    message = find_error(source)
    assert "no known source (tlc, simulated, " in message
    assert "https://" in message
    assert "secret" not in message


# --- simulated months


def test_a_simulated_month_is_the_same_file_every_time(tmp_path: Path) -> None:
    options = {"simulate": simulate_two_batches}
    first = find("simulated:3:5", work_dir=tmp_path / "a", **options)
    again = find("simulated:3:5", work_dir=tmp_path / "b", **options)
    other = find("simulated:3:6", work_dir=tmp_path / "c", **options)
    assert first.path == tmp_path / "a" / NAME
    assert first.uri == "simulated:3:5"
    assert first.sha256 == again.sha256 != other.sha256
    assert read(first.path, "zone") == {"zone": [6, 6, 6, 7, 7, 7]}


@pytest.mark.parametrize(
    ("source", "expected"), [("simulated", (30_000, 42)), ("simulated:7", (7, 42))]
)
def test_a_simulation_says_the_size_and_seed_it_used(
    source: str, expected: tuple[int, int], tmp_path: Path
) -> None:
    asked = []

    def simulate(month: str, n_trips: int, seed: int) -> Iterator[pa.RecordBatch]:
        asked.append((month, n_trips, seed))
        return simulate_two_batches(month, 1, seed)

    found = find(source, work_dir=tmp_path, simulate=simulate)
    assert asked == [("2021-01", *expected)]
    assert found.uri == "simulated:{}:{}".format(*expected)


@pytest.mark.parametrize("tail", ["0", "-5", "many", "1e3", "", "5:x", "5:1:2"])
def test_a_simulation_of_no_size_is_refused(tail: str) -> None:
    assert "above 0" in find_error(f"simulated:{tail}")


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
    monkeypatch.setattr(months, "TLC_URL", server.url)
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
    monkeypatch.setattr(months, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(months, "RETRIES", 0)
    server.will(stalled(make_parquet()), ok(make_parquet()))
    assert "in 1 attempts: ConnectionError" in find_error(server.url)
    assert cached_files(cache) == []
    assert find(server.url).path.read_bytes() == make_parquet()


@pytest.mark.parametrize("code", [403, 404])
def test_a_month_not_published_is_asked_for_once(
    server: Server, cache: Path, naps: list[float], code: int
) -> None:
    for suffix in months.SUFFIXES:
        server.will(status(code), name=f"green_tripdata_2021-01{suffix}")
    message = find_error(server.url)
    assert f"No green trips in {server.url} for 2021-01: tried {NAME} (HTTP {code})" in message
    assert "two months late" in message
    assert len(server.requests) == 3
    assert naps == []
    assert cached_files(cache) == []
    server.will(ok(make_parquet()))
    assert find(server.url).uri == f"{server.url}/{NAME}"


def test_an_unreachable_server_is_one_line_and_its_traceback_tells_no_secret() -> None:
    with pytest.raises(StorageError) as caught:
        find("http://me:hush@127.0.0.1:1/trips?sig=token")
    url = f"http://127.0.0.1:1/trips/{NAME}"
    assert f"Cannot download {url} in 4 attempts: ConnectionError" in one_line(caught)
    errors = [line for line in traceback.format_exception(caught.value) if "Error: " in line]
    assert errors
    assert not re.search("hush|token", " ".join(errors))


def test_a_gzip_is_kept_as_the_server_keeps_it(server: Server) -> None:
    body = gzip.compress(CSV)

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        if "gzip" in handler.headers["Accept-Encoding"]:  # requests would then unpack it
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
    messages = [find_error(source), find_error(source)]
    found = find(source)
    assert found.uri == f"{server.url}/{NAME}"
    assert {handler.path.partition("?")[2] for handler in server.requests} == {"sig=token"}
    assert all(handler.headers["Authorization"] for handler in server.requests)
    assert f"Downloading file '{NAME}' from '{server.url}/{NAME}'" in caplog.text
    seen = " ".join([*messages, found.uri, str(found.path), caplog.text])
    assert not re.search("hush|token|me:", seen)


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://me:secret@host:8080/a/?sig=x#y", "https://host:8080/a"),
        ("https://me:se#cr@et?@host/a", "https://host/a"),
        ("s3://bucket/a@b/", "s3://bucket/a@b"),
    ],
)
def test_a_public_uri_holds_no_credentials(uri: str, public: str) -> None:
    assert months.public_uri(uri) == public


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
    assert months.cache_dir() == Path.home() / "elsewhere"
    monkeypatch.setenv("TAXI_CACHE", "")
    assert months.cache_dir().name == "nyc-taxi"


# --- object stores


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    monkeypatch.setitem(months.SOURCES, "memory://", months._from_store)
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


def test_an_object_is_cached_until_it_changes(
    store: fsspec.AbstractFileSystem, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pipe(f"/trips/{NAME}", make_parquet())
    first = find("memory://trips/")
    assert first.uri == f"memory://trips/{NAME}"
    assert first.path.is_relative_to(cache)
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "get_file", lambda *_: pytest.fail("fetched twice"))
        assert find("memory://trips") == first
    changed = make_parquet(pa.array(["7", "9"]))
    store.pipe(f"/trips/{NAME}", changed)
    assert find("memory://trips").path.read_bytes() == changed


def test_a_store_is_searched_for_csv_too(store: fsspec.AbstractFileSystem) -> None:
    store.pipe("/trips/green_tripdata_2021-01.csv.gz", gzip.compress(CSV))
    assert find("memory://trips").path.name == "green_tripdata_2021-01.csv.gz"


def test_a_store_without_the_month_says_so(store: fsspec.AbstractFileSystem) -> None:
    assert f"No green trips in memory://trips for 2021-01: tried {NAME}" in find_error(
        "memory://trips"
    )


def test_a_damaged_object_never_stays_in_the_cache(
    store: fsspec.AbstractFileSystem, cache: Path
) -> None:
    store.pipe(f"/trips/{NAME}", make_parquet()[:-9])
    assert f"Cannot use /trips/{NAME}" in find_error("memory://trips")
    assert cached_files(cache) == []


def test_a_store_that_denies_access_is_one_line(
    store: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> str:
        raise PermissionError("Access\nDenied")

    monkeypatch.setattr(type(store), "ukey", deny)
    assert "from memory://trips: Access Denied. Check your access" in find_error("memory://trips")


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_store_whose_package_is_missing_says_how_to_add_it(
    scheme: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # missing here even where it is installed
    message = find_error(f"{scheme}://key:secret@bucket/trips")
    assert f"Source {scheme}://bucket/trips needs the package {package}" in message
    assert f"make lock EXTRAS={scheme}" in message


# --- finding and reading together


@pytest.mark.parametrize(
    ("month", "zone_type"), [("2021-01", pa.string()), ("2023-01", pa.int64())]
)
def test_real_months_are_found_and_read(month: str, zone_type: pa.DataType) -> None:
    if not (DATA / f"green_tripdata_{month}.parquet").exists():
        pytest.skip(f"no {month} in {DATA}: set TAXI_DATA to a folder of TLC files")
    path = find(DATA, month).path
    assert files.read_schema(path).field("PULocationID").type == zone_type
    columns = ["PULocationID", "lpep_pickup_datetime"]
    lengths = [len(batch) for batch in files.read_batches(path, columns, batch_rows=10_000)]
    assert sum(lengths) == pq.ParquetFile(path).metadata.num_rows
    assert max(lengths) <= 10_000


def test_reading_a_month_does_not_import_pandas_or_mlflow(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(make_parquet())
    code = (
        "import sys; from pathlib import Path; from storage import files, months\n"
        f"found = months.find({str(tmp_path)!r}, taxi='green', month='2021-01',"
        " work_dir=Path(), simulate=None)\n"
        "assert list(files.read_batches(found.path, ['zone']))\n"
        "print({'pandas', 'mlflow', 'pooch', 'fsspec'} & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
