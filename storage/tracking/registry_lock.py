"""A lock on a registered model, made of its tags: one run at a time changes the champion.

An experiment's tags make such a lock as well: one import at a time writes to it.

MLflow has no compare-and-set, but tags are enough for Lamport's bakery algorithm: each run writes
a tag of its own, and one read returns all tags as of one instant. It works across hosts.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException

from storage import StorageError
from storage.tracking import closing, processes
from storage.tracking.tags import IMPORTING, PROMOTING

POLL_S, PATIENCE_S = 0.2, 600.0  # scoring two models on a month takes seconds, on a year minutes


class RegistryError(StorageError):
    """The registry did not answer, or refused a request."""


class RegistryLock:
    """The lock of one registered model, for one run."""

    family = PROMOTING  # prefix of the tags that are tickets
    at_work = "Run {number} has been changing the champion of registered model {name}"

    def __init__(
        self,
        client: MlflowClient,
        name: str,
        run_id: str,
        *,
        read_tags: Callable[[], Mapping[str, str]],
        answers: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Describe the lock.

        Args:
            client: of the registry.
            name: the registered model.
            run_id: the run that asks for the lock.
            read_tags: reads the registered model's tags.
            answers: context in which MLflow's errors become RegistryErrors.
        """
        self.client = client
        self.name = name
        self.tag = self.family.of(run_id)
        self.read_tags = read_tags
        self.answers = answers

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the lock, and hold it until the body ends.

        Raises:
            RegistryError: another run has held it for longer than any promotion takes.
        """
        try:
            self._wait_for_turn()
            yield
        except BaseException as error:
            # an unreachable registry keeps the tag; the next run sees that this one has ended
            with closing.limit_retries(error), suppress(MlflowException):
                self._delete(self.tag)
            raise
        with self.answers():
            self._delete(self.tag)

    def _write(self, tag: str, text: str) -> None:
        self.client.set_registered_model_tag(self.name, tag, text)

    def _delete(self, tag: str) -> None:
        self.client.delete_registered_model_tag(self.name, tag)

    def _wait_for_turn(self) -> None:
        """Draw a ticket as in a bakery and wait until no smaller one is left.

        Source: Lamport, A new solution of Dijkstra's concurrent programming problem, 1974.
        """
        self._set_ticket(0)  # 0 = drawing a number: everybody waits for that
        own_number = 1 + max(ticket["ticket"] for ticket in self._tickets().values())
        self._set_ticket(own_number)
        started = time.monotonic()
        while before := self._before(own_number):
            if time.monotonic() - started > PATIENCE_S:
                number = before[0].removeprefix(self.family)
                raise RegistryError(
                    f"{self.at_work.format(number=number, name=self.name)} for "
                    f"{PATIENCE_S / 60:.0f} minutes. Wait for it, or, if it is dead, delete the "
                    f"tag {before[0]} there."
                )
            time.sleep(POLL_S)

    def _before(self, own_number: int) -> list[str]:
        """Return the tags of the tickets ahead of this one, after deleting those of dead runs."""
        others = {key: ticket for key, ticket in self._tickets().items() if key != self.tag}
        first = {
            key: ticket
            for key, ticket in others.items()
            if (ticket["ticket"], key) < (own_number, self.tag)
        }
        gone = [key for key, ticket in first.items() if self._is_gone(key, ticket)]
        with self.answers():
            for key in gone:
                self._delete(key)
        return sorted(set(first) - set(gone))

    def _tickets(self) -> dict[str, dict[str, Any]]:
        return {
            key: json.loads(value)
            for key, value in self.read_tags().items()
            if key.startswith(self.family)
        }

    def _set_ticket(self, number: int) -> None:
        ticket = {"ticket": number, "at": utc_now(), **processes.process_tags()}
        with self.answers():
            self._write(self.tag, json.dumps(ticket))

    def _is_gone(self, tag: str, ticket: Mapping[str, str]) -> bool:
        """Whether the run that holds a ticket, or its process, has ended."""
        if processes.is_dead(ticket):
            return True
        try:
            status = self.client.get_run(tag.removeprefix(self.family)).info.status
        except MlflowException:  # a run of another store: its status is unknown here
            return False
        return bool(RunStatus.is_terminated(RunStatus.from_string(status)))


class ImportLock(RegistryLock):
    """The lock of one experiment, for one import; `name` is the experiment's id."""

    family = IMPORTING
    at_work = "Another import has been writing to experiment {name}"

    def _write(self, tag: str, text: str) -> None:
        self.client.set_experiment_tag(self.name, tag, text)

    def _delete(self, tag: str) -> None:
        self.client.delete_experiment_tag(self.name, tag)


def utc_now() -> str:
    """Return the current UTC time as ISO text, whose order is that of time."""
    return datetime.now(UTC).isoformat(timespec="seconds")
