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
    """Counts what this process and the ended ones that it started spend from here on.

    What a cluster's workers spend is not seen from here.
    """

    def __init__(self, *, whole_process: bool = False) -> None:
        """Begin to count; or with the start of this process, which is there for one run alone."""
        self.began = psutil.Process().create_time() if whole_process else time.time()
        self.cpu_before = 0.0 if whole_process else cpu_seconds()

    def read(self) -> dict[str, float]:
        """Read what was spent so far, as metrics; the memory is that of the largest process."""
        return {
            WALL_SECONDS: time.time() - self.began,
            CPU_SECONDS: cpu_seconds() - self.cpu_before,
            PEAK_MEMORY: peak_megabytes(),
        }


def cpu_seconds() -> float:
    """Count the CPU seconds of this process, all its threads, and the ended ones it started."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_megabytes() -> float:
    """Return the most memory that this process, or one that it started and that ended, has held."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(one.ru_maxrss for one in used) / PER_MEGABYTE


def machine_megabytes() -> float:
    """Return the memory of this machine, or of the container that this runs in."""
    total: int = psutil.virtual_memory().total
    limit = CONTAINER_LIMIT.read_text().strip() if CONTAINER_LIMIT.is_file() else ""
    return min(total, int(limit) if limit.isdecimal() else total) / (1 << 20)
