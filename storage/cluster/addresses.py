"""Where a scheduler and its workers are, and whether they can be reached."""

import socket

from distributed.comm.addressing import parse_address, parse_host_port

from storage import StorageError
from storage.uris import without_user

TIMEOUT_S = 5  # a scheduler that is there answers at once
CONNECT_TIMEOUT_S = 1  # and so does a worker
SCHEMES = {"tcp": False, "tls": True, "ws": False, "wss": True}  # -> whether it is encrypted


def read_address(address: str) -> tuple[tuple[str, int], bool]:
    """Parse host and port, and whether the connection is encrypted; Dask would fail much later.

    Raises:
        StorageError: it is not the address of a scheduler.
    """
    try:
        scheme, where = parse_address(address)
        host, port = parse_host_port(where)
        host.encode("idna")
        if scheme in SCHEMES and not set(host) & set(" /@?#") and 0 < port < 65536 and host:
            return (host, port), SCHEMES[scheme]
    except ValueError:  # UnicodeError too
        pass
    raise StorageError(
        f"Scheduler {without_user(address)!r} is no address of a Dask scheduler. Pass the one that "
        f"it prints, such as tcp://127.0.0.1:8786, or leave scheduler empty."
    )


def is_worker_reachable(worker: str) -> bool:
    """Whether the address of a worker accepts connections."""
    try:
        socket.create_connection(
            parse_host_port(parse_address(worker)[1]), CONNECT_TIMEOUT_S
        ).close()
    except OSError:
        return False
    return True
