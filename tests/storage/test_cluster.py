"""Errors of a Dask cluster; a search on one is tested in tests/steps/hpo/test_executor.py."""

import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from typing import Any
from unittest.mock import MagicMock

import cloudpickle
import numpy
import pytest
from dask import config
from distributed import KilledWorker
from distributed.versions import get_versions

import taxi
from storage import StorageError, cluster
from storage.cluster import Cluster
from taxi import TripError
from tests.clusters import dask_cluster
from tests.servers import free_port


class FakeClient:
    """A client of a cluster whose workers are as told."""

    def __init__(self, workers: dict[str, dict[str, str]], scheduler: dict[str, str]) -> None:
        self.workers, self.scheduler = workers, scheduler

    def get_versions(self) -> dict[str, Any]:
        return {"workers": {place: get_versions() for place in self.workers}}

    def run(self, ask: Any, names: list[str], on_error: str) -> dict[str, dict[str, str]]:
        return self.workers

    def run_on_scheduler(self, ask: Any, names: list[str]) -> dict[str, str]:
        return self.scheduler


HERE = cluster._versions(["numpy", "no-such-package"])


def test_versions_are_those_installed_and_say_what_is_missing() -> None:
    assert HERE["numpy"] == numpy.__version__
    assert HERE["no-such-package"] == "missing"


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
    monkeypatch.setattr(cluster, "Client", None)  # its clean-up raised, 10 s later
    refused = pytest.raises(StorageError, match="is no address of a Dask scheduler")
    with refused, cluster.connected(address, code=[], packages=[], on_gpus=False):
        pytest.fail("connected")


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(StorageError) as refused:
        cluster._client("tcp://ana:secret@127.0.0.1:1")
    assert "secret" not in str(refused.value)


def test_tls_without_a_certificate_is_told() -> None:
    with pytest.raises(StorageError, match="speaks TLS, and Dask knows no certificate"):
        cluster._client("tls://127.0.0.1:1")


CERTIFICATE = ("ca-file", "client.cert", "client.key")  # settings that each name a file


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_that_cannot_be_read_is_told(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with (
        config.set({f"distributed.comm.tls.{name}": str(path) for name in CERTIFICATE}),
        pytest.raises(StorageError, match=r"no certificate here that can be read \(.+\)\. Name it"),
    ):
        cluster._client("tls://127.0.0.1:1")


def test_a_port_at_which_nobody_listens() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    refused = pytest.raises(StorageError, match=f"'{address}' .*Start one with dask scheduler")
    with refused, cluster.connected(address, code=[], packages=[], on_gpus=False):
        pytest.fail("connected")


def test_a_cluster_without_workers_is_refused() -> None:
    with pytest.raises(StorageError, match=r"at tcp://a has no workers\. Start some"):
        cluster._check(FakeClient({}, HERE), "tcp://a", ["numpy"])


@pytest.mark.parametrize("where", ["worker", "scheduler"])
def test_other_versions_are_refused_by_name(where: str) -> None:
    other = HERE | {"numpy": "1.0.0"}
    workers = {"tcp://w1": HERE, "tcp://w2": other if where == "worker" else HERE}
    client = FakeClient(workers, other if where == "scheduler" else HERE)
    place = "tcp://w2" if where == "worker" else "tcp://a"
    said = f"{place} of the Dask cluster has numpy 1.0.0, not {HERE['numpy']}. Start"
    with pytest.raises(StorageError, match=said):
        cluster._check(client, "tcp://a", ["numpy", "no-such-package"])


def test_a_worker_of_another_python_is_refused_before_any_code_is_sent() -> None:
    other = get_versions()
    other["packages"]["python"] = "3.10.1.final.0"
    client = MagicMock(get_versions=lambda: {"workers": {"tcp://w1": other}})
    with pytest.raises(StorageError, match=r"tcp://w1 of the Dask cluster has python 3\.10, not"):
        cluster._check(client, "tcp://a", ["numpy"])
    client.run.assert_not_called()


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Listen at an address, and say something to whoever comes; nothing for no bytes."""

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
    monkeypatch.setattr(cluster, "TIMEOUT_S", 0.5)
    refused = pytest.raises(StorageError, match="No Dask scheduler answers at 'tcp:")
    with answering(answer) as address, refused:
        cluster._client(address)


def test_the_address_of_a_worker_is_told_from_that_of_the_scheduler(tmp_path: Path) -> None:
    refused = pytest.raises(StorageError, match="is a Worker of Dask")
    with dask_cluster(tmp_path) as dask:
        worker = next(iter(dask.client.scheduler_info()["workers"]))
        with refused, cluster.connected(worker, code=[], packages=[], on_gpus=False):
            pytest.fail("connected")


@pytest.fixture
def hanging() -> Iterator[Callable[..., None]]:
    """Give what never answers, until the test is over."""
    over = Event()
    yield lambda *_, **__: over.wait() and None
    over.set()


def test_a_worker_that_hangs_is_not_waited_for(
    hanging: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_S", 0.1)
    monkeypatch.setattr(cluster, "_client", lambda _: MagicMock(get_versions=hanging))
    with (
        pytest.raises(StorageError, match="Not all of the Dask cluster at tcp://a answers"),
        cluster.connected("tcp://a", code=[], packages=[], on_gpus=False),
    ):
        pytest.fail("connected")


def test_a_scheduler_that_hangs_is_given_up(
    hanging: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.2)
    workers = {"tcp://127.0.0.1:1": {"status": "running", "nthreads": 1}}
    watched = Cluster(
        MagicMock(scheduler_info=lambda: {"workers": workers}), "tcp://a", on_gpus=False
    )
    watched.client.scheduler_info = hanging
    waiting = Future[Any]()
    watched.open.add(waiting)
    with watched.watched():
        wait([waiting], timeout=2)
    assert "scheduler of the Dask cluster at tcp://a does not answer for" in watched.lost


def test_a_function_travels_with_its_code() -> None:
    by_value = cluster._ByValue(lambda data: data + 1)
    again = cloudpickle.loads(cloudpickle.dumps(by_value))
    assert again(1) == by_value(1) == 2


class Executor:
    """Of a client: the one task ends as told."""

    def __init__(self, error: BaseException | None, returned: bytes = b"") -> None:
        self.ended: Future[Any] = Future()
        self.ended.set_exception(error) if error else self.ended.set_result(returned)

    def submit(self, task: Any, first: Any, more: bytes) -> "Future[Any]":
        return self.ended


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KilledWorker("task", None, 3), "4 workers .* died, one after the other, .* memory"),
        (CancelledError(), "went away; go on"),
    ],
)
def test_a_lost_cluster_says_why(error: BaseException, said: str) -> None:
    lost = Cluster.__new__(Cluster)
    lost.address, lost.lost, lost.open, lost.tasks = "tcp://a", "", set(), {}
    lost.executor = Executor(error)
    with pytest.raises(StorageError, match=said), lost.gone_as(lambda: "go on"):
        lost.submit(len, []).result(timeout=1)


def test_a_trials_own_error_is_no_loss_of_the_cluster() -> None:
    lost = Cluster.__new__(Cluster)
    lost.address, lost.lost, lost.open, lost.tasks = "tcp://a", "", set(), {}
    lost.executor = Executor(ValueError("own"))
    with pytest.raises(ValueError, match="own"):
        lost.submit(len, []).result(timeout=1)
    assert not lost.lost


def test_nobody_waits_for_what_cannot_be_unpacked() -> None:
    asked = Cluster.__new__(Cluster)
    asked.address, asked.lost, asked.open, asked.tasks = "tcp://a", "", set(), {}
    asked.executor = Executor(None, b"no pickle")
    with pytest.raises(UnpicklingError):
        asked.submit(len, []).result(timeout=1)


def test_an_error_of_this_project_comes_back_as_what_it_is_here(tmp_path: Path) -> None:
    def refuse(text: str) -> None:
        raise TripError(text)

    def fail(text: str) -> None:
        raise ValueError(text)

    before = dict(vars(TripError))
    with (
        dask_cluster(tmp_path) as dask,
        cluster.connected(dask.address, code=[taxi], packages=[], on_gpus=False) as workers,
    ):
        with pytest.raises(TripError, match="no trips"):
            workers.submit(refuse, "no trips").result(timeout=60)
        with pytest.raises(ValueError, match="no number") as caught:
            workers.submit(fail, "no number").result(timeout=60)
    assert caught.traceback[-1].name == "fail"  # a surprise says where it was
    assert all(vars(TripError)[name] is value for name, value in before.items())


@pytest.mark.parametrize(
    ("status", "n_executing", "expected"),
    [("running", 0, True), ("paused", 1, True), ("paused", 0, False)],
)
def test_a_paused_worker_is_able_while_it_has_a_task(
    status: str, n_executing: int, expected: bool
) -> None:
    worker = {"status": status, "metrics": {"executing": n_executing}}
    assert cluster.is_able(worker) is expected


@pytest.mark.parametrize("is_there", [True, False])
def test_what_tasks_return_comes_from_workers_that_can_be_reached(is_there: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if is_there else free_port()
        workers = {f"tcp://127.0.0.1:{port}": {"nthreads": 3}}
        client = MagicMock(scheduler_info=lambda: {"workers": workers})
        assert Cluster(client, "tcp://a", on_gpus=False).n_workers == 3
    assert client.direct_to_workers is is_there


@pytest.mark.parametrize("is_there", [True, False])
def test_a_scheduler_that_went_away_before_data_was_held_is_said_in_a_line(is_there: bool) -> None:
    gone = MagicMock(side_effect=OSError("Timed out trying to connect"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if is_there else free_port()
        asked = Cluster(MagicMock(run=gone), f"tcp://127.0.0.1:{port}", on_gpus=False)
        refused = pytest.raises(StorageError, match=f"127.0.0.1:{port} went away; go on")
        with refused, asked.gone_as(lambda: "go on"), asked.hold([1]):
            pass
    assert gone.called is is_there


def test_dask_logs_no_traceback_of_a_scheduler_that_went_away() -> None:
    gone = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(StorageError), cluster.connected(gone, code=[], packages=[], on_gpus=False):
        pass
    assert not logging.getLogger("distributed.client").isEnabledFor(logging.ERROR)
    assert not logging.getLogger("distributed.core").isEnabledFor(logging.ERROR)


def test_it_is_said_once_that_the_scheduler_keeps_what_workers_cannot_fetch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = MagicMock(run=lambda *_, **__: {"tcp://127.0.0.1:1": False})
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        asked = Cluster(client, address, on_gpus=False)
        with asked.hold([1]), asked.hold([2]):
            pass
    assert capsys.readouterr().out.count("cannot reach this machine") == 1


@pytest.mark.parametrize("needed", [["tcp://127.0.0.1:1"], ["tcp://127.0.0.1:2"], ["tcp://gone:1"]])
def test_workers_that_train_together_are_given_up_where_one_of_them_does_nothing(
    needed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.2)
    states = {"tcp://127.0.0.1:1": "paused", "tcp://127.0.0.1:2": "running"}
    workers = {place: {"status": state, "nthreads": 1} for place, state in states.items()}
    client = MagicMock(scheduler_info=lambda: {"workers": workers})
    watched = Cluster(client, "tcp://a", on_gpus=False)
    watched.needed, waiting = needed, Future[Any]()
    watched.open.add(waiting)
    with watched.watched():
        wait([waiting], timeout=2)
    assert waiting.cancelled() is (needed != ["tcp://127.0.0.1:2"])
    assert bool(watched.lost) is waiting.cancelled()
