"""Which process a run belongs to, whether it still lives, and how many cores it has."""

import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

from storage.tracking.tags import HOST, PID, STARTED

# the kernel's clock and ours drift apart by seconds; a process id comes round far more slowly
CLOCK_DRIFT_S = 60.0


def n_cores() -> int:
    """Count the cores that this process may use; all there are where no system call says."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_tags() -> dict[str, str]:
    """Describe this process, as tags of a run it works on."""
    me = psutil.Process()
    values = (_host(), str(me.pid), f"{me.create_time():.0f}")
    return dict(zip(map(str, (HOST, PID, STARTED)), values, strict=True))


def is_dead(tags: Mapping[str, str]) -> bool:
    """Whether the process that these tags name is surely gone.

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
    except psutil.AccessDenied:
        return False


def _host() -> str:
    """Return what tells apart the spaces in which a process id means one process.

    Linux has namespaces; elsewhere it is the machine. Containers may share a host's name and its
    network card, and machines their name.
    """
    namespace = Path("/proc/self/ns/pid")
    ids = namespace.readlink().name if namespace.is_symlink() else "pid"
    return f"{socket.gethostname()} {uuid.getnode():012x} {ids}"
