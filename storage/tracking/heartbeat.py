"""The heartbeat in a step's run, by which other hosts notice that its process has died.

The same thread ends an orphaned step, whose pipeline has died: it would go on unseen while the next
pipeline runs the same step again.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from storage.tracking import processes
from storage.tracking.tags import HEARTBEAT

BEAT_S = 120.0  # a tenth of the silence after which a process counts as dead
PARENT_CHECK_S = 0.2  # between looks at the parent process, which take microseconds
GRACE_S = 30.0  # for closing the run, before the step is killed


def first_beat() -> dict[str, str]:
    """Return the heartbeat tag that a run begins with."""
    return {str(HEARTBEAT): f"{time.time():.0f}"}


class Heartbeat:
    """A thread that writes heartbeats of this process until it is stopped."""

    def __init__(self, run_id: str, above: Mapping[str, str]) -> None:
        """Start the thread.

        Args:
            run_id: the run to write to.
            above: tags of the parent run, which name the process that waits for this one; empty =
                there is none.
        """
        self.run_id = run_id
        self.above = above
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.thread.start()

    @property
    def is_orphan(self) -> bool:
        """Whether the process that waits for this one has died."""
        return processes.is_dead(self.above)

    def stop(self) -> None:
        """Stop the thread."""
        self.over.set()

    def _run(self) -> None:
        client, step_s, waited_s = MlflowClient(), PARENT_CHECK_S if self.above else BEAT_S, 0.0
        while not self.over.wait(step_s):
            if self.is_orphan:
                self._end()
                return
            waited_s += step_s
            if waited_s >= BEAT_S:
                self.beat(client)
                waited_s = 0.0

    def beat(self, client: MlflowClient) -> None:
        """Write one heartbeat; if the store does not answer, the step itself will notice."""
        try:
            client.set_tag(self.run_id, HEARTBEAT, first_beat()[HEARTBEAT])
        except MlflowException:
            return

    def _end(self) -> None:
        """End this process as an interruption does; kill it if that hangs."""
        os.kill(os.getpid(), signal.SIGTERM)
        if not self.over.wait(GRACE_S):
            os.kill(os.getpid(), signal.SIGKILL)
