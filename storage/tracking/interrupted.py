"""The run of an interrupted step is KILLED, whatever launched the step calls it.

MLflow's runner calls a run FAILED whose command ended with a code other than 0, after the step has
closed it as KILLED. Where nobody of this project waits for the step, a process of its own corrects
that: python -m storage.tracking.interrupted <run id>
"""

import sys
import time

from mlflow import MlflowClient

from storage.tracking.tags import FAILURE, PID

REASON = "interrupted"
POLL_S, PATIENCE_S = 0.5, 60.0


def restore(client: MlflowClient, run_id: str) -> bool:
    """Make the run of an interrupted step KILLED where it is FAILED; returns whether it was."""
    run = client.get_run(run_id)
    was_failed = run.info.status == "FAILED" and run.data.tags.get(FAILURE) == REASON
    if was_failed:
        client.set_terminated(run_id, "KILLED")
    return was_failed


def main() -> None:
    """Wait until the run is called FAILED, and restore it."""
    client, end = MlflowClient(), time.monotonic() + PATIENCE_S
    if PID not in client.get_run(sys.argv[1]).data.tags:  # no step had taken it yet
        client.set_tag(sys.argv[1], FAILURE, REASON)
    while not restore(client, sys.argv[1]) and time.monotonic() < end:
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
