"""Keep the run of an interrupted step KILLED, although MLflow's runner marks it FAILED.

The runner does so for every command that exits with a code other than 0, after the step has closed
its run as KILLED. If no code of this project waits for the step, a separate process corrects that:
python -m storage.tracking.interrupted <run id>
"""

import sys
import time

from mlflow import MlflowClient

from storage.tracking.tags import FAILURE, PID

REASON = "interrupted"
POLL_S, PATIENCE_S = 0.5, 60.0


def restore(client: MlflowClient, run_id: str) -> bool:
    """Set the run of an interrupted step from FAILED to KILLED; return whether it was FAILED."""
    run = client.get_run(run_id)
    was_failed = run.info.status == "FAILED" and run.data.tags.get(FAILURE) == REASON
    if was_failed:
        client.set_terminated(run_id, "KILLED")
    return was_failed


def main() -> None:
    """Wait until the run is marked FAILED, then restore it."""
    client, end = MlflowClient(), time.monotonic() + PATIENCE_S
    if PID not in client.get_run(sys.argv[1]).data.tags:  # no step had adopted it yet
        client.set_tag(sys.argv[1], FAILURE, REASON)
    while not restore(client, sys.argv[1]) and time.monotonic() < end:
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
