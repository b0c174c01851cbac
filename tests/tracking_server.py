"""A real MLflow server, and a proxy in front of it that can fall silent."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.servers import serving_mlflow
from tests.stores import copy_empty_store


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start `mlflow server` on its own database; yield its address."""
    folder = tmp_path_factory.mktemp("server")
    # allows webhooks to this machine, and to a receiver that has only just been registered
    hooks = {"ALLOW_PRIVATE_IPS": "true", "ALLOWED_SCHEMES": "http", "CACHE_TTL": "0"}
    env = {f"MLFLOW_WEBHOOK_{name}": value for name, value in hooks.items()}
    store = ("--backend-store-uri", copy_empty_store(tmp_path_factory, folder))
    artifacts = ("--artifacts-destination", str(folder / "artifacts"))
    with serving_mlflow(folder, env, "--workers", "2", *store, *artifacts) as address:
        yield address


class Line:
    """The line to a server; it is cut at the first write after `writes_left` more."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.uri = ""
        self.writes_left: int | None = None  # None = no limit
        self.is_cut = False
        self.loses: Callable[[str, str], bool] = lambda *_: False  # whether to lose method, path

    def lets_through(self, is_write: bool) -> bool:
        """Return whether this request reaches the server."""
        if is_write and self.writes_left is not None:
            self.is_cut |= self.writes_left == 0
            self.writes_left -= 1
        return not self.is_cut

    def mend(self) -> None:
        """Let everything through again."""
        self.writes_left, self.is_cut = None, False


@contextmanager
def line_to(server: str) -> Iterator[Line]:
    """Put a line in front of a server; yield it."""
    line = Line(server)

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not line.lets_through(self.command != "GET"):
                self.close_connection = True
                return
            headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            url = line.server + self.path
            answer = requests.request(self.command, url, data=body, headers=headers, timeout=60)
            if line.loses(self.command, self.path):
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            kind = answer.headers.get("Content-Type", "application/json")  # files come without one
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        line.uri = f"http://127.0.0.1:{running.server_port}"
        try:
            yield line
        finally:
            running.shutdown()
            thread.join()
