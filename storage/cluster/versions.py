"""Versions that scheduler, workers and this process must have in common."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed import Client
from distributed.versions import get_versions

from storage import StorageError
from storage.cluster.rpc import send_request
from storage.cluster.tasks import PROTOCOL_PACKAGES, ByValue

REQUIREMENTS = "Start scheduler and workers in the environment of requirements.txt."


def check_versions(client: Client, address: str, packages: Sequence[str]) -> None:
    """Make sure that scheduler and workers have the same versions as this process.

    Raises:
        StorageError: one has another version, which is named, or there are no workers.
        TimeoutError: one does not answer.
    """
    local = protocol_versions(get_versions())
    # before any code is sent: that of another Python may crash a worker
    for place, reported in send_request(client.get_versions)["workers"].items():
        compare_versions(place, protocol_versions(reported), local)
    ask, names = ByValue(_versions), list(packages)
    workers: Mapping[str, dict[str, str]] = send_request(client.run, ask, names, on_error="ignore")
    if not workers:
        raise StorageError(
            f"The scheduler at {address} has no workers. Start some: dask worker {address}"
        )
    # the scheduler unpickles what passes through it, too
    everywhere = {address: send_request(client.run_on_scheduler, ask, names), **workers}
    for place, remote in everywhere.items():
        compare_versions(place, remote, _versions(names))


def compare_versions(place: str, remote: Mapping[str, str], local: Mapping[str, str]) -> None:
    """Refuse versions that differ from those here.

    Raises:
        StorageError: some differ; names them.
    """
    wrong = (name for name in local if remote[name] != local[name])
    if differences := [f"{name} {remote[name]}, not {local[name]}" for name in wrong]:
        raise StorageError(
            f"{place} of the Dask cluster has {'; '.join(differences)}. {REQUIREMENTS}"
        )


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def protocol_versions(reported: Mapping[str, Any]) -> dict[str, str]:
    """Select, from the versions that Dask reports, those that must agree for any message."""
    versions = {
        name: str(reported["packages"].get(name) or "missing") for name in PROTOCOL_PACKAGES
    }
    return versions | {"python": ".".join(versions["python"].split(".")[:2])}
