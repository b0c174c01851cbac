"""Which process a run belongs to, whether it still lives, and how many cores it has."""

import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

from storage.tracking.tags import HEARTBEAT, HOST, PID, STARTED

# the kernel's clock and ours drift apart by seconds; a process id is reused far more slowly
CLOCK_DRIFT_S = 60.0
# long enough for a store that is down for minutes, a laptop asleep and clocks that differ
SILENCE_S = 1200.0


def n_cores() -> int:
    """Return how many cores this process may use; all cores if the system does not say."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_tags() -> dict[str, str]:
    """Describe this process, as tags of a run it works on."""
    me = psutil.Process()
    values = (_host(), str(me.pid), f"{me.create_time():.0f}")
    return dict(zip(map(str, (HOST, PID, STARTED)), values, strict=True))


def is_dead(tags: Mapping[str, str]) -> bool:
    """Whether the process that these tags name has certainly ended.

    False if this cannot be known here: another host or container, or a run that names no process.
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
    """Whether a run of another host has had no heartbeat for so long that its process is dead.

    False for a run of this host, whose process can be looked up, and for one without heartbeats.

    Args:
        tags: of the run.
        now: seconds since 1970.
    """
    is_elsewhere = process_of(tags)[:1] not in ((), (_host(),))
    return is_elsewhere and HEARTBEAT in tags and now - float(tags[HEARTBEAT]) > SILENCE_S


def process_of(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return what identifies a run's process among those of all hosts; empty if it names none."""
    names = (HOST, PID, STARTED)
    return tuple(tags[name] for name in names) if set(names) <= set(tags) else ()


def _host() -> str:
    """Identify the space in which a process id is unique: on Linux a namespace, else a machine.

    One name or network card is not enough: containers may share their host's name and card, and
    machines a name.
    """
    namespace = Path("/proc/self/ns/pid")
    ids = namespace.readlink().name if namespace.is_symlink() else "pid"
    return f"{socket.gethostname()} {_machine()} {ids}"


def _machine() -> str:
    """Identify the machine by its network card's address, or by its boot id if there is none.

    A small container image may lack the program from which Python gets the address, or have no
    card; Python then draws a random address, another one in each process, and marks it as random.

    Source: RFC 9562, section 6.10.
    """
    address = uuid.getnode()
    if not address >> 40 & 1:
        return f"{address:012x}"
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.is_file() else ""
