"""A sign of life in the run of a step, so that other hosts know when its process has died.

The same thread ends the step where the pipeline that launched it has died: it would go on unseen
while the next pipeline runs the very step again.
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

BEAT_S = 120.0  # a tenth of the silence that means death
LOOK_S = 0.2  # at the process above, which costs microseconds
GRACE_S = 30.0  # for closing the run, before the step is killed


def first_beat() -> dict[str, str]:
    """Return the sign of life that a run begins with, as a tag."""
    return {str(HEARTBEAT): f"{time.time():.0f}"}


class Heartbeat:
    """Shows that this process lives, from a thread, until it is stopped."""

    def __init__(self, run_id: str, above: Mapping[str, str]) -> None:
        """Begin.

        Args:
            run_id: of the run that shows it.
            above: tags of the run above, which name the process that waits for this one; may be
                empty.
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
        """Show no more signs of life."""
        self.over.set()

    def _run(self) -> None:
        client, step_s, waited_s = MlflowClient(), LOOK_S if self.above else BEAT_S, 0.0
        while not self.over.wait(step_s):
            if self.is_orphan:
                self._end()
                return
            waited_s += step_s
            if waited_s >= BEAT_S:
                self.beat(client)
                waited_s = 0.0

    def beat(self, client: MlflowClient) -> None:
        """Show one sign of life; where the store is away, the step itself will come to know."""
        try:
            client.set_tag(self.run_id, HEARTBEAT, first_beat()[HEARTBEAT])
        except MlflowException:
            return

    def _end(self) -> None:
        """End this process in order, as an interruption does, or without order where it hangs."""
        os.kill(os.getpid(), signal.SIGTERM)
        if not self.over.wait(GRACE_S):
            os.kill(os.getpid(), signal.SIGKILL)
