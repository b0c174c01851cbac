"""How the loss of a cluster shows; tests/steps/hpo/test_executor.py tests a search on one."""

import socket
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from pickle import UnpicklingError
from typing import Any
from unittest.mock import MagicMock

import pytest
from distributed import KilledWorker

from storage import StorageError
from storage.cluster import executor
from storage.cluster.executor import Cluster
from tests.servers import free_port


def client_of(workers: dict[str, Any], *, is_connected: bool = True) -> MagicMock:
    """Return a client whose scheduler has these workers."""
    client = MagicMock(scheduler_info=lambda: {"workers": workers})
    client.submit.return_value.cancelled.return_value = not is_connected
    return client


def test_a_scheduler_that_hangs_is_given_up(
    hanging: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "PATIENCE_S", 0.2)
    workers = {"tcp://127.0.0.1:1": {"status": "running", "nthreads": 1}}
    watched = Cluster(client_of(workers), "tcp://a", on_gpus=False)
    watched.client.scheduler_info = hanging
    waiting = Future[Any]()
    watched.open.add(waiting)
    with watched.watched():
        wait([waiting], timeout=2)
    assert "scheduler of the Dask cluster at tcp://a does not answer for" in watched.lost


class Executor:
    """The executor of a client, whose only task ends as configured."""

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
    with pytest.raises(StorageError, match=said), lost.loss_as_error(lambda: "go on"):
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


@pytest.mark.parametrize(
    ("status", "n_executing", "expected"),
    [("running", 0, True), ("paused", 1, True), ("paused", 0, False)],
)
def test_a_paused_worker_is_able_while_it_has_a_task(
    status: str, n_executing: int, expected: bool
) -> None:
    worker = {"status": status, "metrics": {"executing": n_executing}}
    assert executor.can_take_tasks(worker) is expected


@pytest.mark.parametrize("is_there", [True, False])
def test_what_tasks_return_comes_from_workers_that_can_be_reached(is_there: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if is_there else free_port()
        workers = {f"tcp://127.0.0.1:{port}": {"nthreads": 3}}
        client = client_of(workers)
        assert Cluster(client, "tcp://a", on_gpus=False).n_workers == 3
    assert client.direct_to_workers is is_there


@pytest.mark.parametrize("is_there", [True, False])
def test_a_scheduler_that_went_away_before_data_was_held_is_said_in_a_line(is_there: bool) -> None:
    gone = MagicMock(side_effect=OSError("Timed out trying to connect"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if is_there else free_port()
        asked = Cluster(MagicMock(run=gone), f"tcp://127.0.0.1:{port}", on_gpus=False)
        refused = pytest.raises(StorageError, match=f"127.0.0.1:{port} went away; go on")
        with refused, asked.loss_as_error(lambda: "go on"), asked.hold([1]):
            pass
    assert gone.called is is_there


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
    monkeypatch.setattr(executor, "PATIENCE_S", 0.2)
    states = {"tcp://127.0.0.1:1": "paused", "tcp://127.0.0.1:2": "running"}
    workers = {place: {"status": state, "nthreads": 1} for place, state in states.items()}
    watched = Cluster(client_of(workers), "tcp://a", on_gpus=False)
    watched.needed, waiting = needed, Future[Any]()
    watched.open.add(waiting)
    with watched.watched():
        wait([waiting], timeout=2)
    assert waiting.cancelled() is (needed != ["tcp://127.0.0.1:2"])
    assert bool(watched.lost) is waiting.cancelled()


def test_a_connection_that_was_lost_is_said_though_a_task_waits_for_its_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "PATIENCE_S", 0.2)
    workers = {"tcp://127.0.0.1:1": {"status": "running", "nthreads": 1}}
    client = client_of(workers, is_connected=False)  # but connected anew by now
    watched, waiting = Cluster(client, "tcp://a", on_gpus=False), Future[Any]()
    watched.open.add(waiting)
    with watched.watched():
        wait([waiting], timeout=2)
    assert waiting.cancelled()
    assert watched.lost == "The Dask cluster at tcp://a went away"
