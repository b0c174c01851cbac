"""Run a step that is disturbed at its n-th call to the store.

python -m tests.steps.disturbed <n> <what> <step> [arguments of the step]
"""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from tests.entry import entry

# the calls that write trials
CALLS = ("create_run", "log_batch", "set_terminated", "log_metric")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def kill_server() -> None:
    """Kill the server, the process group in the variable SERVER_GROUP."""
    os.killpg(int(os.environ["SERVER_GROUP"]), signal.SIGKILL)


def restart_server() -> None:
    """Kill the server, start it again, and write its process group to the file RESTARTED."""
    kill_server()
    server = subprocess.Popen(os.environ["RESTART"], shell=True, start_new_session=True)
    Path(os.environ["RESTARTED"]).write_text(str(server.pid))


def disturb(number: int, what: Callable[[], None]) -> None:
    """Call `what` before the n-th call to the store, counted from 1."""
    calls = count(1)

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == number:
                what()
            return call(*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(MlflowClient, name, wrap(getattr(MlflowClient, name)))


if __name__ == "__main__":
    disturb(int(sys.argv[1]), globals()[sys.argv[2]])
    entry(sys.argv[3]).main(sys.argv[4:])
