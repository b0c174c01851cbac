"""Data that this process serves to the workers of a cluster, which fetch it as often as needed.

A plain server of one file: nobody gets it without its random name, and no request body is ever
read. The sha256 is sent with the task, so other bytes are never accepted.
"""

import hashlib
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, NamedTuple
from urllib.request import ProxyHandler, Request, build_opener

CHUNK_BYTES = 1 << 20
HEAD_TIMEOUT_S, FETCH_TIMEOUT_S = 3, 60  # seconds of silence


class HeldData(NamedTuple):
    """Where to fetch data, and its digest."""

    addresses: tuple[str, ...]  # of the same data, the likeliest first
    sha256: str


@contextmanager
def serve(data: bytes, hosts: Iterable[str]) -> Iterator[HeldData]:
    """Serve bytes to whoever knows their random name.

    Args:
        data: what to serve, from a temporary file.
        hosts: names of this machine by which it may be reached, the likeliest first.
    """
    name = secrets.token_urlsafe(32)
    with TemporaryDirectory(prefix="held-") as folder:
        path = Path(folder, "data")
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        del data
        with _server(path, name) as port:
            addresses = dict.fromkeys(f"http://{host}:{port}/{name}" for host in hosts)
            yield HeldData(tuple(addresses), sha256)


class _Server(ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not report a worker that died while it fetched: another one will ask again."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def _server(path: Path, name: str) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.begin()

        def do_GET(self) -> None:
            if self.begin():
                with path.open("rb") as file:
                    shutil.copyfileobj(file, self.wfile, CHUNK_BYTES)

        def begin(self) -> bool:
            is_known = secrets.compare_digest(self.path.encode(), f"/{name}".encode())
            self.send_response(HTTPStatus.OK if is_known else HTTPStatus.NOT_FOUND)
            self.send_header("Content-Length", str(path.stat().st_size if is_known else 0))
            self.end_headers()
            return is_known

        def log_message(self, *_: object) -> None:
            """Log nothing: the terminal belongs to the step."""

    with _Server(("", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


def is_reachable(held: HeldData) -> bool:
    """Whether the data can be reached from here; called on a worker."""
    return _find_reachable_address(held) is not None


def fetch(held: HeldData) -> bytes:
    """Fetch the data; called by a task on a worker.

    Raises:
        OSError: nothing answers, or the bytes differ.
        HTTPException: the answer is truncated.
    """
    address = _find_reachable_address(held)
    if address is None:
        raise OSError(f"nobody answers at {held.addresses[0].rpartition('/')[0]}")
    with _opener().open(address, timeout=FETCH_TIMEOUT_S) as answer:
        data = bytes(answer.read())
    if hashlib.sha256(data).hexdigest() != held.sha256:
        raise OSError("the data came cut or changed")
    return data


def _find_reachable_address(held: HeldData) -> str | None:
    for address in held.addresses:
        try:
            with _opener().open(Request(address, method="HEAD"), timeout=HEAD_TIMEOUT_S):
                return address
        except OSError:
            continue
    return None


def _opener() -> Any:
    return build_opener(ProxyHandler({}))  # a worker's proxy does not know this machine
