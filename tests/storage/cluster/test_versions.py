"""Versions in which a cluster and this process must agree."""

from typing import Any
from unittest.mock import MagicMock

import numpy
import pytest
from distributed.versions import get_versions

from storage import StorageError
from storage.cluster import versions


class FakeClient:
    """A client of a cluster whose workers are as configured."""

    def __init__(self, workers: dict[str, dict[str, str]], scheduler: dict[str, str]) -> None:
        self.workers, self.scheduler = workers, scheduler

    def get_versions(self) -> dict[str, Any]:
        return {"workers": {place: get_versions() for place in self.workers}}

    def run(self, ask: Any, names: list[str], on_error: str) -> dict[str, dict[str, str]]:
        return self.workers

    def run_on_scheduler(self, ask: Any, names: list[str]) -> dict[str, str]:
        return self.scheduler


HERE = versions._versions(["numpy", "no-such-package"])


def test_versions_are_those_installed_and_say_what_is_missing() -> None:
    assert HERE["numpy"] == numpy.__version__
    assert HERE["no-such-package"] == "missing"


def test_a_cluster_without_workers_is_refused() -> None:
    with pytest.raises(StorageError, match=r"at tcp://a has no workers\. Start some"):
        versions.check_versions(FakeClient({}, HERE), "tcp://a", ["numpy"])


@pytest.mark.parametrize("where", ["worker", "scheduler"])
def test_other_versions_are_refused_by_name(where: str) -> None:
    other = HERE | {"numpy": "1.0.0"}
    workers = {"tcp://w1": HERE, "tcp://w2": other if where == "worker" else HERE}
    client = FakeClient(workers, other if where == "scheduler" else HERE)
    place = "tcp://w2" if where == "worker" else "tcp://a"
    said = f"{place} of the Dask cluster has numpy 1.0.0, not {HERE['numpy']}. Start"
    with pytest.raises(StorageError, match=said):
        versions.check_versions(client, "tcp://a", ["numpy", "no-such-package"])


def test_a_worker_of_another_python_is_refused_before_any_code_is_sent() -> None:
    other = get_versions()
    other["packages"]["python"] = "3.10.1.final.0"
    client = MagicMock(get_versions=lambda: {"workers": {"tcp://w1": other}})
    with pytest.raises(StorageError, match=r"tcp://w1 of the Dask cluster has python 3\.10, not"):
        versions.check_versions(client, "tcp://a", ["numpy"])
    client.run.assert_not_called()
