"""Connecting to a Dask cluster, or to something else."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from unittest.mock import MagicMock

import pytest
from dask import config

from storage import StorageError
from storage.cluster import connection, rpc
from tests.clusters import dask_cluster
from tests.servers import free_port


@pytest.mark.parametrize(
    "address",
    [
        *("tcpp://127.0.0.1:1", "tcp://127.0.0.1:", "tcp://", "foo", "tcp://127.0.0.1:99999", " "),
        *(
            "inproc://127.0.0.1/1/1",
            "tcp://127.0.0.1:abc",
            "http://127.0.0.1:1",
            "ucx://127.0.0.1:1",
        ),
        *("tcp://a b:1", "tcp://:1", "tcp://127.0.0.1:0", f"tcp://{'é' * 80}:1", "tcp://a/b:1"),
    ],
)
def test_what_is_no_address_is_refused_and_leaves_nothing_that_ends_later(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "Client", None)  # a real one's clean-up raises 10 s later
    refused = pytest.raises(StorageError, match="is no address of a Dask scheduler")
    with refused, connection.connected(address, code=[], packages=[], on_gpus=False):
        pytest.fail("connected")


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(StorageError) as refused:
        connection._client("tcp://ana:secret@127.0.0.1:1")
    assert "secret" not in str(refused.value)


def test_tls_without_a_certificate_is_told() -> None:
    with pytest.raises(StorageError, match="speaks TLS, and Dask knows no certificate"):
        connection._client("tls://127.0.0.1:1")


CERTIFICATE = ("ca-file", "client.cert", "client.key")  # settings that name a file each


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_that_cannot_be_read_is_told(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with (
        config.set({f"distributed.comm.tls.{name}": str(path) for name in CERTIFICATE}),
        pytest.raises(StorageError, match=r"no certificate here that can be read \(.+\)\. Name it"),
    ):
        connection._client("tls://127.0.0.1:1")


def test_a_port_at_which_nobody_listens() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    refused = pytest.raises(StorageError, match=f"'{address}' .*Start one with dask scheduler")
    with refused, connection.connected(address, code=[], packages=[], on_gpus=False):
        pytest.fail("connected")


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Listen at an address, and send `answer` to every caller, or nothing if it is empty."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(answer)
            self.rfile.read()

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_answers_and_is_no_scheduler_is_not_waited_for(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.5)
    refused = pytest.raises(StorageError, match="No Dask scheduler answers at 'tcp:")
    with answering(answer) as address, refused:
        connection._client(address)


def test_the_address_of_a_worker_is_told_from_that_of_the_scheduler(tmp_path: Path) -> None:
    refused = pytest.raises(StorageError, match="is a Worker of Dask")
    with dask_cluster(tmp_path) as dask:
        worker = next(iter(dask.client.scheduler_info()["workers"]))
        with refused, connection.connected(worker, code=[], packages=[], on_gpus=False):
            pytest.fail("connected")


def test_a_worker_that_hangs_is_not_waited_for(
    hanging: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "ANSWER_TIMEOUT_S", 0.1)
    monkeypatch.setattr(connection, "_client", lambda _: MagicMock(get_versions=hanging))
    with (
        pytest.raises(StorageError, match="Not all of the Dask cluster at tcp://a answers"),
        connection.connected("tcp://a", code=[], packages=[], on_gpus=False),
    ):
        pytest.fail("connected")


def test_dask_logs_no_traceback_of_a_scheduler_that_went_away() -> None:
    gone = f"tcp://127.0.0.1:{free_port()}"
    with (
        pytest.raises(StorageError),
        connection.connected(gone, code=[], packages=[], on_gpus=False),
    ):
        pass
    assert not logging.getLogger("distributed.client").isEnabledFor(logging.ERROR)
    assert not logging.getLogger("distributed.core").isEnabledFor(logging.ERROR)
