"""What the tests of months share: a server that misbehaves on demand, folders, a cache."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pyarrow as pa
import pytest

from storage import StorageError
from storage.data import months, sources
from tests.storage.samples import NAME, one_line


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


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """An object store in memory, memory://."""
    monkeypatch.setitem(months.SOURCES, "memory://", sources.ObjectStore)
    there = fsspec.filesystem("memory")
    yield there
    there.store.clear()


# --- a server that misbehaves on demand

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests.append(self)
        answers = self.server.script[self.path.split("?")[0]]
        answer = answers.pop(0) if len(answers) > 1 else answers[0] if answers else status(404)
        answer(self)

    do_HEAD = do_GET  # noqa: N815

    def begin(self, code: int, n_bytes: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(n_bytes))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def ok(body: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin(200, len(body))
        if handler.command != "HEAD":
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
