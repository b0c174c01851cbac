"""The run of an interrupted step is KILLED, whatever launched the step calls it.

MLflow's runner calls a run FAILED whose command ended with a code other than 0, after the step has
closed it as KILLED. Where nobody of this project waits for the step, a process of its own corrects
that: python -m storage.tracking.interrupted <run id>
"""

import subprocess
import sys
import time

from mlflow import MlflowClient

from storage import checkout
from storage.tracking.tags import FAILURE

REASON = "interrupted"
POLL_S, PATIENCE_S = 0.5, 60.0


def restore(client: MlflowClient, run_id: str) -> bool:
    """Make the run of an interrupted step KILLED where it is FAILED; returns whether it was."""
    run = client.get_run(run_id)
    was_failed = run.info.status == "FAILED" and run.data.tags.get(FAILURE) == REASON
    if was_failed:
        client.set_terminated(run_id, "KILLED")
    return was_failed


def restore_later(run_id: str) -> None:
    """Have a process do so that outlives this one, for `mlflow run` speaks last."""
    subprocess.Popen(
        [sys.executable, "-m", "storage.tracking.interrupted", run_id],
        cwd=checkout.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main() -> None:
    """Wait until the run is called FAILED, and restore it."""
    client, end = MlflowClient(), time.monotonic() + PATIENCE_S
    while not restore(client, sys.argv[1]) and time.monotonic() < end:
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
