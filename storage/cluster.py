"""An existing Dask cluster as an executor, and what a worker needs to run this checkout's code."""

import logging
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from types import ModuleType
from typing import Any

import cloudpickle
from distributed import Client, get_worker

from storage import StorageError

TIMEOUT_S = 5  # a scheduler that is there answers at once
GPU = "GPU"  # the resource by which workers offer theirs: dask worker --resources GPU=1


class _ByValue:
    """A function that travels with its code: distributed would send no more than its name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.packed = cloudpickle.dumps(function)

    def __call__(self, *arguments: Any) -> Any:
        return cloudpickle.loads(self.packed)(*arguments)

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return cloudpickle.loads, (self.packed,)


class Cluster:
    """A connected cluster: tasks go to its workers, one per thread or per GPU."""

    def __init__(self, client: Client, address: str, *, on_gpus: bool) -> None:
        self.client = client
        self.address = address
        workers = client.scheduler_info()["workers"].values()
        if on_gpus:
            self.n_workers = int(sum(worker["resources"].get(GPU, 0) for worker in workers))
        else:
            self.n_workers = sum(worker["nthreads"] for worker in workers)
        # a task whose worker dies goes to another one by itself
        needs = {"resources": {GPU: 1}} if on_gpus else {}
        self.executor = client.get_executor(pure=False, **needs)

    def scatter(self, data: Any) -> Any:
        """Send plain data to every worker, once; tasks are given it through this handle."""
        (handle,) = self.client.scatter([data], broadcast=True)
        return handle

    def submit(self, function: Callable[..., Any], handle: Any, *arguments: Any) -> Future[Any]:
        """Run a function on some worker, with the data scattered there and these arguments."""
        return self.executor.submit(_ByValue(lambda data: function(data, *arguments)), handle)


@contextmanager
def connected(
    address: str, *, code: Sequence[ModuleType], packages: Sequence[str], on_gpus: bool
) -> Iterator[Cluster]:
    """Connect to a scheduler, and make its workers run this checkout's code.

    Args:
        address: of the scheduler, such as tcp://127.0.0.1:8786.
        code: packages and modules whose functions travel to the workers by value: those need no
            checkout, and can hold no older one.
        packages: whose versions must be the same here and there, beside those that connect us.
        on_gpus: run a task per GPU rather than per thread.
    Raises:
        StorageError: nobody answers, there are no workers, or they have other versions.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)
    client = _client(address)
    travels = [sys.modules[__name__], *code]
    for module in travels:
        cloudpickle.register_pickle_by_value(module)
    try:
        _check(client, address, [*packages, "cloudpickle", "distributed"])
        cluster = Cluster(client, address, on_gpus=on_gpus)
        if not cluster.n_workers:
            raise StorageError(
                f"No worker at {address} offers a GPU. Start them with "
                f"dask worker {address} --nthreads 1 --resources {GPU}=1, one per GPU."
            )
        yield cluster
    finally:
        for module in travels:
            cloudpickle.unregister_pickle_by_value(module)
        client.close(timeout=TIMEOUT_S)


def once_per_worker(key: str, make: Callable[[], Any]) -> Any:
    """Return what `make` makes, made once in this worker's process; only the last key is kept.

    Called by a task on a worker.
    """
    worker = get_worker()
    lock = worker.__dict__.setdefault("_nyc_taxi_lock", Lock())
    with lock:
        known = worker.__dict__.get("_nyc_taxi", (None, None))
        if known[0] != key:
            known = worker.__dict__["_nyc_taxi"] = (key, make())
        return known[1]


def _client(address: str) -> Client:
    try:
        return Client(address, timeout=TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"No Dask scheduler answers at {address!r} ({type(error).__name__}). Start one with "
            f"dask scheduler, or leave scheduler empty to run the trials here."
        ) from error


def _check(client: Client, address: str, packages: Sequence[str]) -> None:
    ask, names = _ByValue(_versions), list(packages)
    workers: Mapping[str, dict[str, str]] = client.run(ask, names)
    if not workers:
        raise StorageError(
            f"The scheduler at {address} has no workers. Start some: dask worker {address}"
        )
    here = _versions(names)
    # the scheduler, too, unpacks what passes through it
    everywhere = {address: client.run_on_scheduler(ask, names), **workers}
    for place, there in everywhere.items():
        wrong = (name for name in here if there[name] != here[name])
        differ = [f"{name} {there[name]}, not {here[name]}" for name in wrong]
        if differ:
            raise StorageError(
                f"{place} of the Dask cluster has {'; '.join(differ)}. "
                f"Start scheduler and workers in the environment of requirements.txt."
            )


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions
