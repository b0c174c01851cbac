"""Connecting to a cluster: does it answer, and can its workers run this checkout's code?"""

import asyncio
import logging
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from distributed import Client, Security
from distributed.comm.core import connect
from distributed.core import send_recv
from distributed.versions import VersionMismatchWarning, get_versions

import storage.cluster
from storage import StorageError, one_line
from storage.cluster.addresses import TIMEOUT_S, read_address
from storage.cluster.executor import GPU, Cluster
from storage.cluster.tasks import pickled_by_value
from storage.cluster.versions import check_versions, compare_versions, protocol_versions
from storage.uris import without_user


@contextmanager
def connected(
    address: str, *, code: Sequence[ModuleType], packages: Sequence[str], on_gpus: bool
) -> Iterator[Cluster]:
    """Connect to a scheduler, and make its workers run this checkout's code.

    Args:
        address: of the scheduler, such as tcp://127.0.0.1:8786.
        code: packages and modules whose functions are sent to the workers by value: these need no
            checkout, and cannot use an older one.
        packages: those whose versions must agree, besides the ones that the connection needs.
        on_gpus: run a task per GPU rather than per thread.
    Raises:
        StorageError: nothing answers, there are no workers, or they have other versions.
    """
    # not even errors, with their tracebacks: what goes wrong is raised as a one-line error
    for name in ("distributed", "distributed.client"):  # Dask sets the client's level separately
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore", VersionMismatchWarning)  # those that matter are refused below
    client = _client(address)
    try:
        with pickled_by_value((storage.cluster, *code)):
            cluster = _checked(client, address, packages, on_gpus=on_gpus)
            with cluster.watched():
                yield cluster
    finally:
        client.close(timeout=TIMEOUT_S)


def _checked(client: Client, address: str, packages: Sequence[str], *, on_gpus: bool) -> Cluster:
    """Return the cluster, if its workers can be used."""
    try:
        check_versions(client, address, packages)
        cluster = Cluster(client, address, on_gpus=on_gpus)
    except OSError as error:
        raise StorageError(
            f"Not all of the Dask cluster at {address} answers ({type(error).__name__}). Look "
            f"after its workers: the scheduler gives up one that hangs after some minutes."
        ) from error
    if not cluster.n_workers:
        raise StorageError(
            f"No worker at {address} offers a GPU. Start them with "
            f"dask worker {address} --nthreads 1 --resources {GPU}=1, one per GPU."
        )
    return cluster


def _client(address: str) -> Client:
    shown, place, is_encrypted = without_user(address), *read_address(address)
    if is_encrypted:
        _check_certified(shown)
    try:
        socket.create_connection(place, timeout=TIMEOUT_S).close()  # Dask would try for 5 s
        kind, reported = asyncio.run(_ask_what(address))
        if kind != "Scheduler":
            raise StorageError(
                f"What answers at {shown!r} is a {kind} of Dask. Pass the address of the scheduler."
            )
        compare_versions(address, reported, protocol_versions(get_versions()))
        return Client(address, timeout=TIMEOUT_S, set_as_default=False)
    # another server may answer with anything, which Dask takes for sizes and the like
    except (OSError, MemoryError, ValueError) as error:
        of_both = "with a certificate that both sides take, " if is_encrypted else ""
        raise StorageError(
            f"No Dask scheduler answers at {shown!r} ({type(error).__name__}). Start one with "
            f"dask scheduler, {of_both}or leave scheduler empty to work here."
        ) from error


def _check_certified(shown: str) -> None:
    """Make sure that Dask's configuration has a certificate."""
    try:
        context, error = Security().get_connection_args("client")["ssl_context"], ""
    except OSError as raised:  # it is missing or invalid
        context, error = None, f" that can be read ({one_line(raised)})"
    if not context:
        raise StorageError(
            f"Scheduler {shown!r} speaks TLS, and Dask knows no certificate here{error}. Name it "
            f"in Dask's configuration, distributed.comm.tls."
        )


async def _ask_what(address: str) -> tuple[str, dict[str, str]]:
    """Ask what kind of server is at an address, and its versions; Dask would wait for ever."""
    encryption = Security().get_connection_args("client")
    async with asyncio.timeout(TIMEOUT_S):
        line = await connect(address, timeout=TIMEOUT_S, **encryption)
        try:
            kind = (await send_recv(line, op="identity"))["type"]
            return kind, protocol_versions(await send_recv(line, op="versions"))
        finally:
            line.abort()
