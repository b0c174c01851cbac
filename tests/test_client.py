"""docs/client.py as people call it: it prints a trip's minutes, or a one-line error."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from storage.checkout import ROOT
from tests.servers import free_port

TOLD = ["2021-03-05T17:45", "74", "75"]
USAGE = "Usage: python docs/client.py URL PICKUP_AT PICKUP_ZONE DROPOFF_ZONE [PLANNED_MILES]\n"
WARNED = {"predictions": [10.5], "warnings": ["Row 0 is odd.", "So is its zone."]}


def call(*words: str) -> tuple[int, str, str]:
    """Call the client; return its exit code, its output and its error output."""
    command = [sys.executable, "docs/client.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


class Scripted(HTTPServer):
    """A server that gives every request the same answer, and records what it was sent."""

    def __init__(self, status: int, content: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.content = status, content
        self.sent: list[tuple[str, Any]] = []  # path, body
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.sent.append((self.path, json.loads(body)))
        if self.server.status:
            self.send_response(self.server.status)
            self.end_headers()
        self.wfile.write(self.server.content.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing, to keep the tests' output clean."""


@contextmanager
def answering(content: Any, status: int = 200) -> Iterator[Scripted]:
    text = content if isinstance(content, str) else json.dumps(content)
    with Scripted(status, text) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(("miles", "sent"), [([], None), (["1.3"], 1.3)])
def test_the_client_asks_with_a_planned_distance_or_without_and_passes_warnings_on(
    miles: list[str], sent: float | None
) -> None:
    with answering(WARNED) as server:
        said = call(f"{server.url}/", *TOLD, *miles)
    assert said == (0, "10.5\n", "Row 0 is odd.\nSo is its zone.\n")
    row = {"lpep_pickup_datetime": "2021-03-05 17:45:00", "PULocationID": 74, "DOLocationID": 75}
    assert server.sent == [("/invocations", {"dataframe_records": [row | {"trip_distance": sent}]})]


def test_the_client_tells_how_it_is_called() -> None:
    assert call("--help") == (0, USAGE, "")
    for words in ([], ["http://127.0.0.1:5001"], ["http://127.0.0.1:5001", *TOLD, "1.3", "2"]):
        assert call(*words) == (2, "", USAGE)


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (400, {"message": "Row 0,\ncolumn 'x'."}, "Row 0, column 'x'.\n"),
        (404, "<html>", "{url} answers 404, no predictions. Is it a model server?\n"),
        (500, [1], "{url} answers 500, no "),
        (200, "<html>", "{url} answers 200, no "),
        (200, {"predictions": None}, "{url} answers 200, no "),
        (0, "SSH-2.0\r\n", "{url} cannot be asked: BadStatusLine"),
    ],
)
def test_an_answer_that_is_none_is_told_by_the_client_in_a_line(
    status: int, content: Any, words: str
) -> None:
    with answering(content, status) as server:
        code, output, error = call(server.url, *TOLD)
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert error.startswith(words.format(url=server.url))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["127.0.0.1:5001", *TOLD], "'127.0.0.1:5001' is no server's address. Send one like http:"),
        (["file:///etc", *TOLD], "'file:///etc' is no server's address"),
        (["http://127.0.0.1:port", *TOLD], "http://127.0.0.1:port cannot be asked: InvalidURL"),
        ([f"http://127.0.0.1:{free_port()}", *TOLD], "cannot be reached: "),
        (["http://127.0.0.1:1", "now", "74", "75"], "'now'"),
        (["http://127.0.0.1:1", TOLD[0], "Harlem", "75"], "'Harlem'"),
        (["http://127.0.0.1:1", *TOLD, "far"], "'far'"),
    ],
)
def test_what_the_client_cannot_use_is_a_line_that_names_it(words: list[str], named: str) -> None:
    code, output, error = call(*words)
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert named in error
