"""A proxy in front of an MLflow server that injects one fault, once or from then on."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

PAGE = b"<!DOCTYPE html><html><body>Log in</body></html>"
HOPS = ("connection", "content-length", "date", "server", "transfer-encoding")
SILENCE_S = 30.0  # longer than any client here waits
ARTIFACTS = "/mlflow-artifacts/artifacts/"


class Answer(NamedTuple):
    """A server's answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    proxy: "Proxy"

    def handle_request(self) -> None:
        """Pass a request on, unless it is to meet the fault."""
        length = int(self.headers.get("Content-Length") or 0)
        self.request_body = self.rfile.read(length)
        act = self.proxy.fault_of(self.command, self.path)
        if act:
            act(self)
        else:
            self.answer(*self.ask())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815

    def ask(self) -> Answer:
        """Pass the request on to the server; return its answer."""
        server = HTTPConnection(urlsplit(self.proxy.server).netloc, timeout=60)
        headers = {name: self.headers[name] for name in ("Content-Type",) if name in self.headers}
        server.request(self.command, self.path, self.request_body, headers)
        came = server.getresponse()
        kept = [(name, value) for name, value in came.getheaders() if name.lower() not in HOPS]
        answer = Answer(came.status, kept, came.read())
        server.close()
        return answer

    def answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, claims: int | None = None
    ) -> None:
        """Answer the client; `claims` is a Content-Length other than the body's."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if claims is None else claims))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def reset(self) -> None:
        """Reset the connection, as a dying peer does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


Act = Callable[[Handler], None]


class Fault(NamedTuple):
    """A fault to inject."""

    name: str
    act: Act
    is_for_good: bool = False
    only: str = ""  # GET = only reads of artifacts, PUT = only writes of them; empty = any request

    def may_hit(self, method: str, path: str) -> bool:
        """Whether such a request may meet the fault."""
        return not self.only or (method == self.only and ARTIFACTS in path)


class Proxy:
    """The state of a proxy: its fault, and the requests so far."""

    def __init__(self, server: str, fault: Fault | None, number: int) -> None:
        """Inject the fault at request `number`, from 0, among the requests that may meet it."""
        self.server, self.fault, self.number = server, fault, number
        self.uri = ""
        self.asked: list[tuple[str, str]] = []  # methods and paths
        self.hit: list[tuple[str, str]] = []  # those that met the fault
        self.lock = threading.Lock()

    def fault_of(self, method: str, path: str) -> Act | None:
        """Return the fault that this request meets; None if it meets none."""
        with self.lock:
            self.asked.append((method, path))
            if self.fault is None or not self.fault.may_hit(method, path):
                return None
            self.number -= 1
            if self.number >= 0 or (self.number < -1 and not self.fault.is_for_good):
                return None
            self.hit.append((method, path))
            return self.fault.act


@contextmanager
def proxy_to(server: str, fault: Fault | None = None, number: int = 0) -> Iterator[Proxy]:
    """Put a proxy between a client and a server."""
    proxy = Proxy(server, fault, number)
    handler = type("Handled", (Handler,), {"proxy": proxy})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        running.block_on_close = False  # a silent handler outlives its case
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        proxy.uri = f"http://127.0.0.1:{running.server_port}"
        try:
            yield proxy
        finally:
            running.shutdown()
            thread.join()


# --- faults


def says(status: int, body: bytes = b"injected", *headers: tuple[str, str]) -> Act:
    """Answer in place of the server, which never sees the request."""
    return lambda handler: handler.answer(status, [*headers], body)


def replaces(body: bytes) -> Act:
    """Replace the body of the server's answer."""

    def act(handler: Handler) -> None:
        answer = handler.ask()
        handler.answer(answer.status, answer.headers, body)

    return act


def cuts(handler: Handler) -> None:
    """Close the connection in the middle of the answer."""
    answer = handler.ask()
    handler.answer(*answer._replace(body=answer.body[:1]), claims=len(answer.body) + 1)
    handler.close_connection = True


def cuts_unseen(handler: Handler) -> None:
    """Send half of the answer as if it were all of it."""
    answer = handler.ask()
    handler.answer(*answer._replace(body=answer.body[: len(answer.body) // 2]))


def claims_less(handler: Handler) -> None:
    """Claim a Content-Length smaller than the body."""
    answer = handler.ask()
    handler.answer(*answer, claims=len(answer.body) // 2)
    handler.close_connection = True


def resets_before(handler: Handler) -> None:
    """Reset the connection before the server is asked."""
    handler.reset()


def resets_after(handler: Handler) -> None:
    """Reset the connection after the server has done its work, so that the answer is lost."""
    handler.ask()
    handler.reset()


def is_silent(handler: Handler) -> None:
    """Never answer."""
    time.sleep(SILENCE_S)
    handler.close_connection = True


def drips(handler: Handler) -> None:
    """Answer byte by byte, each within the client's read timeout."""
    answer = handler.ask()
    handler.answer(*answer._replace(body=b""), claims=len(answer.body))
    for start in range(0, len(answer.body), step := max(1, len(answer.body) // 8)):
        time.sleep(0.1)
        handler.wfile.write(answer.body[start : start + step])
        handler.wfile.flush()


LATER, LOGIN = ("Retry-After", "1"), ("Location", "/login")
TOMORROW = ("Retry-After", "86400")
FAULTS = (
    *(Fault(f"{code}", says(code)) for code in (400, 401, 403, 404, 409, 413, 429)),
    *(Fault(f"{code}", says(code)) for code in (500, 502, 503, 504)),
    Fault("429, Retry-After", says(429, b"", LATER)),
    *(Fault(f"{code} for good", says(code), True) for code in (401, 403, 500, 503)),
    Fault("429, Retry-After, for good", says(429, b"", LATER), True),
    Fault("login page", says(200, PAGE)),
    Fault("login page for good", says(200, PAGE), True),
    Fault("redirect to login", says(302, b"", LOGIN)),
    Fault("empty body", replaces(b"")),
    Fault("invalid JSON", replaces(b'{"run": ')),
    Fault("JSON of another shape", replaces(b'{"status": "ok"}')),
    Fault("JSON that is a list", replaces(b'["ok"]')),
    Fault("answer cut", cuts),
    Fault("answer cut for good", cuts, True),
    Fault("wrong content length", claims_less),
    Fault("reset before the server", resets_before),
    Fault("reset for good", resets_before, True),
    Fault("answer lost", resets_after),
    Fault("no answer", is_silent),
    Fault("no answer for good", is_silent, True),
    Fault("slow drip", drips),
    Fault("artifact read: cut", cuts, only="GET"),
    Fault("artifact read: cut, with a length to match", cuts_unseen, only="GET"),
    *(Fault(f"artifact written: {code}", says(code), only="PUT") for code in (403, 413, 500, 507)),
    Fault("429, Retry-After of a day", says(429, b"", TOMORROW)),
)
