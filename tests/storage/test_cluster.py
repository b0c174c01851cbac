"""Errors of a Dask cluster; a search on one is tested in tests/steps/test_workplace.py."""

from typing import Any

import cloudpickle
import numpy
import pytest

from storage import StorageError, cluster
from tests.servers import free_port


class FakeClient:
    """A client of a cluster whose workers are as told."""

    def __init__(self, workers: dict[str, dict[str, str]], scheduler: dict[str, str]) -> None:
        self.workers, self.scheduler = workers, scheduler

    def run(self, ask: Any, names: list[str]) -> dict[str, dict[str, str]]:
        return self.workers

    def run_on_scheduler(self, ask: Any, names: list[str]) -> dict[str, str]:
        return self.scheduler


HERE = cluster._versions(["numpy", "no-such-package"])


def test_versions_are_those_installed_and_say_what_is_missing() -> None:
    assert HERE["numpy"] == numpy.__version__
    assert HERE["no-such-package"] == "missing"


@pytest.mark.parametrize("address", ["nowhere:1", "tcpp://127.0.0.1:1", "tcp://127.0.0.1:"])
def test_an_address_at_which_no_scheduler_answers(address: str) -> None:
    refused = pytest.raises(StorageError, match=f"No Dask scheduler answers at '{address}'")
    with refused, cluster.connected(address, code=[], packages=[], on_gpus=False):
        pytest.fail("connected")


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


def test_a_function_travels_with_its_code() -> None:
    by_value = cluster._ByValue(lambda data: data + 1)
    again = cloudpickle.loads(cloudpickle.dumps(by_value))
    assert again(1) == by_value(1) == 2
