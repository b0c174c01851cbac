"""Measure the numbers in docs/numbers.md, all in one run: `make bench`.

A single measurement: `python -m bench cleaning`. Real months come from the folder TAXI_DATA.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TAXI_DATA", ROOT / "../shared/data")).resolve()
# units of ru_maxrss in a MiB: bytes on macOS, KiB elsewhere
MIB = 1 << 20 if sys.platform == "darwin" else 1 << 10


class Result(NamedTuple):
    """One line of the table."""

    what: str
    measured: str
    must: str


def peak_mib(uri: str, *command: str) -> float:
    """Run a module on a store, in its own process; return that process's peak memory, MiB."""
    env = os.environ | {"MLFLOW_TRACKING_URI": uri}
    with TemporaryDirectory() as folder, Path(folder, "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=env, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(Path(folder, "log").read_text()[-2000:])
        return usage.ru_maxrss / MIB
