"""What a run costs: wall and CPU seconds and peak memory, among MLflow's own system metrics."""

import resource
import sys
import time
from pathlib import Path

import psutil

from storage.tracking.tags import CPU_SECONDS, PEAK_MEMORY, WALL_SECONDS

# ru_maxrss counts kilobytes, on macOS bytes
PER_MEGABYTE = 1024 * 1024 if sys.platform == "darwin" else 1024
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # bytes, or «max»


class Meter:
    """Measures what this process and its ended child processes use from here on.

    What a cluster's workers use is not included.
    """

    def __init__(self, *, whole_process: bool = False) -> None:
        """Start measuring now or, if this process serves one run only, from its start."""
        self.began = psutil.Process().create_time() if whole_process else time.time()
        self.cpu_before = 0.0 if whole_process else cpu_seconds()

    def read(self) -> dict[str, float]:
        """Return what was used so far, as metrics; the memory is that of the largest process."""
        return {
            WALL_SECONDS: time.time() - self.began,
            CPU_SECONDS: cpu_seconds() - self.cpu_before,
            PEAK_MEMORY: peak_megabytes(),
        }


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, with all threads, and its ended child processes."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_megabytes() -> float:
    """Return the peak memory, megabytes, of this process or an ended child, whichever is larger."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(one.ru_maxrss for one in used) / PER_MEGABYTE


def machine_megabytes() -> float:
    """Return the memory, megabytes, of this machine, or of the container that this runs in."""
    total: int = psutil.virtual_memory().total
    limit = CONTAINER_LIMIT.read_text().strip() if CONTAINER_LIMIT.is_file() else ""
    return min(total, int(limit) if limit.isdecimal() else total) / (1 << 20)
