"""Which process a run belongs to, and whether it still lives."""

import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

HOST, PID, STARTED = "process.host", "process.id", "process.started"
# the kernel's clock and ours drift apart by seconds; a process id comes round far more slowly
CLOCK_DRIFT_S = 60.0


def tags() -> dict[str, str]:
    """Name this process, as tags of a run it works on."""
    me = psutil.Process()
    return {HOST: _host(), PID: str(me.pid), STARTED: f"{me.create_time():.0f}"}


def is_dead(tags: Mapping[str, str]) -> bool:
    """Tell whether the process that these tags name is surely gone.

    False where nobody here can know: another host or container, or a run that names no process.
    """
    if tags.get(HOST) != _host() or not {PID, STARTED} <= set(tags):
        return False
    try:
        process = psutil.Process(int(tags[PID]))
        drift = abs(process.create_time() - float(tags[STARTED]))
        return drift > CLOCK_DRIFT_S or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _host() -> str:
    """Name the space in which a process id means one process.

    Containers may share a host's name and its network card, and machines their name.
    """
    namespace = Path("/proc/self/ns/pid")
    ids = namespace.readlink().name if namespace.is_symlink() else "pid"
    return f"{socket.gethostname()} {uuid.getnode():012x} {ids}"
