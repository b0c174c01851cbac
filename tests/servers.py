"""Servers that tests start on loopback."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving_mlflow(folder: Path, env: Mapping[str, str], *options: str) -> Iterator[str]:
    """Start `mlflow server` in a folder, with extra environment variables; yield its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), *options]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **env}, stdout=log, stderr=log
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def wait_for(url: str, server: subprocess.Popen[Any]) -> None:
    """Wait until the server answers; fail if it ends first."""
    session = requests.Session()
    retry = requests.adapters.Retry(total=240, backoff_factor=0.1, backoff_max=1)
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
    assert session.get(url, timeout=10).status_code == 200
    assert server.poll() is None
