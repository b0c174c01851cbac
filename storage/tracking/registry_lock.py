"""A lock on a registered model, made of its tags: one run at a time changes the champion.

An experiment has tags as well, and a lock made of them: one import at a time writes to it.

MLflow has tags and aliases, and nothing that compares and sets in one go. Tags are
enough: each writer has one of its own, a read shows all of them at one instant, and of that
Lamport's bakery makes a lock, whatever hosts the runs are on.
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
    """The registry did not answer, or refused."""


class RegistryLock:
    """The lock of one registered model, as one run asks for it."""

    family = PROMOTING  # of the tags that are tickets
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
        """Take what asks the registry: how to read the model's tags, what turns its errors."""
        self.client = client
        self.name = name
        self.tag = self.family.of(run_id)
        self.read_tags = read_tags
        self.answers = answers

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the lock, and hold it until the body is through.

        Raises:
            RegistryError: another run has held it for longer than any promotion takes.
        """
        try:
            self._wait_for_turn()
            yield
        except BaseException as error:
            # a registry that is gone keeps the tag, and who comes next sees that this run has ended
            with closing.in_seconds(error), suppress(MlflowException):
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
        self._set_ticket(0)  # 0: drawing; nobody may overtake who draws
        mine = 1 + max(ticket["ticket"] for ticket in self._tickets().values())
        self._set_ticket(mine)
        started = time.monotonic()
        while before := self._before(mine):
            if time.monotonic() - started > PATIENCE_S:
                number = before[0].removeprefix(self.family)
                raise RegistryError(
                    f"{self.at_work.format(number=number, name=self.name)} for "
                    f"{PATIENCE_S / 60:.0f} minutes. Wait for it, or, if it is dead, delete the "
                    f"tag {before[0]} there."
                )
            time.sleep(POLL_S)

    def _before(self, mine: int) -> list[str]:
        """List the tags of those whose turn is first, having cleared away those who are gone."""
        others = {key: ticket for key, ticket in self._tickets().items() if key != self.tag}
        first = {
            key: ticket
            for key, ticket in others.items()
            if (ticket["ticket"], key) < (mine, self.tag)
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
        """Whether the run that holds a ticket has ended, or its process has."""
        if processes.is_dead(ticket):
            return True
        try:
            status = self.client.get_run(tag.removeprefix(self.family)).info.status
        except MlflowException:  # a run of another store: nobody here can know
            return False
        return bool(RunStatus.is_terminated(RunStatus.from_string(status)))


class ImportLock(RegistryLock):
    """The lock of one experiment, named by its id, as one import asks for it."""

    family = IMPORTING
    at_work = "Another import has been writing to experiment {name}"

    def _write(self, tag: str, text: str) -> None:
        self.client.set_experiment_tag(self.name, tag, text)

    def _delete(self, tag: str) -> None:
        self.client.delete_experiment_tag(self.name, tag)


def utc_now() -> str:
    """Return the time, UTC, as text that sorts."""
    return datetime.now(UTC).isoformat(timespec="seconds")
