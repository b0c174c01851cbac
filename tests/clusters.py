"""A Dask cluster that tests start: a scheduler and two workers, each in its own process."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client

from tests.docs import readme_command
from tests.servers import free_port

SCHEDULER = "tcp://<host>:8786"  # in README


class Dask:
    """A scheduler and its workers, started in a folder without this project's code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.scheduler = self.start(readme_command("dask scheduler"), "--host", self.address)
        self.workers = [self.start_worker() for _ in range(2)]

    def connect(self) -> None:
        self.client = Client(self.address, timeout=60, set_as_default=False)
        self.client.wait_for_workers(2, timeout=60)

    def start(self, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *shlex.split(command), *arguments, "--no-dashboard"],
            cwd=self.folder,
            stderr=subprocess.DEVNULL,
        )

    def start_worker(self) -> subprocess.Popen[bytes]:
        command = readme_command("dask worker").replace(SCHEDULER, self.address)
        # without a nanny, which would start a killed one again
        return self.start(command, "--no-nanny")

    def close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@contextmanager
def dask_cluster(folder: Path) -> Iterator[Dask]:
    """Start a cluster, and stop it even if it never answers."""
    dask = Dask(folder)
    try:
        dask.connect()
        yield dask
    finally:
        dask.close()
