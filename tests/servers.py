"""Servers that tests start on loopback."""

import socket
import subprocess
from typing import Any

import requests


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: subprocess.Popen[Any]) -> None:
    """Ask until the server answers; it is a failure if it ends first."""
    session = requests.Session()
    retry = requests.adapters.Retry(total=240, backoff_factor=0.1, backoff_max=1)
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
    assert session.get(url, timeout=10).status_code == 200
    assert server.poll() is None
