"""Which process a run belongs to, whether it still lives, and how many cores it has."""

import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

from storage.tracking.tags import HEARTBEAT, HOST, PID, STARTED

# the kernel's clock and ours drift apart by seconds; a process id comes round far more slowly
CLOCK_DRIFT_S = 60.0
# a store that is away for minutes, a laptop that naps and clocks that differ kill nobody
SILENCE_S = 1200.0


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


def is_silent(tags: Mapping[str, str], now: float) -> bool:
    """Whether a run of another host has shown no sign of life for so long that it is dead.

    False for one of this host, whose process can be looked for, and for one that never shows any.

    Args:
        tags: of the run.
        now: seconds since 1970.
    """
    is_elsewhere = process_of(tags)[:1] not in ((), (_host(),))
    return is_elsewhere and HEARTBEAT in tags and now - float(tags[HEARTBEAT]) > SILENCE_S


def process_of(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Name the process that works on a run, among those of all hosts; empty where none is named."""
    names = (HOST, PID, STARTED)
    return tuple(tags[name] for name in names) if set(names) <= set(tags) else ()


def _host() -> str:
    """Return what tells apart the spaces in which a process id means one process.

    Linux has namespaces; elsewhere it is the machine. Containers may share a host's name and its
    network card, and machines their name.
    """
    namespace = Path("/proc/self/ns/pid")
    ids = namespace.readlink().name if namespace.is_symlink() else "pid"
    return f"{socket.gethostname()} {_machine()} {ids}"


def _machine() -> str:
    """Name the machine: by its network card, or by when it was started where it shows none.

    A small image has no program that tells Python the card's address, and one without a network no
    card; Python then draws an address, another one in each process, and marks it as drawn.

    Source: RFC 9562, section 6.10.
    """
    address = uuid.getnode()
    if not address >> 40 & 1:
        return f"{address:012x}"
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.is_file() else ""
