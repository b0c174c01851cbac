"""A registered model: its versions, its champion, and the true history of how it came to be that.

MLflow's registry has tags and aliases, and nothing that compares and sets in one go. Tags are
enough: each writer has one of its own, a read shows all of them at one instant, and of that
Lamport's bakery makes a lock. Whoever promotes holds it, so that on one server, whatever host they
run on, two pipelines come one after the other, each measured against the champion that is there.
"""

import io
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import RunStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from storage import StorageError
from storage.data.files import one_line
from storage.tracking import processes

CHAMPION, CHALLENGER = "champion", "challenger"
LOCK, PROMOTION = "promoting.", "promotion."  # how the tags of a registered model begin
BEGUN, DONE, BROKEN_OFF = "begun", "done", "broken off"
PROMOTE, ROLL_BACK = "promoted", "rolled back"
ROLLED_BACK = "rolled_back"  # tag of a version: when somebody took it out of use
POLL_S, PATIENCE_S = 0.2, 600.0  # scoring two models on a month takes seconds, on a year minutes


class RegistryError(StorageError):
    """The registry did not answer, or refused."""


class Promotion(NamedTuple):
    """One change of the champion, as the registered model's tags tell it."""

    action: str  # PROMOTE or ROLL_BACK
    version: str  # the new champion
    over: str  # the one before; empty where there was none
    at: str  # UTC
    by: str  # developer
    run_id: str
    why: str
    state: str  # BEGUN until the alias is set; BROKEN_OFF where it never was


class Registry:
    """One registered model, as one run works on it."""

    def __init__(self, name: str, *, run_id: str, developer: str) -> None:
        self.name = name
        self.run_id = run_id
        self.developer = developer
        self.client = MlflowClient()

    # --- reading

    def champion(self) -> ModelVersion | None:
        """Look up the version that alias champion points to, if there is one."""
        version = self._aliases().get(CHAMPION)
        with self._answers():
            return self.client.get_model_version(self.name, version) if version else None

    def history(self) -> list[Promotion]:
        """List every change of the champion, oldest first."""
        tags = self._tags()
        keys = sorted(key for key in tags if key.startswith(PROMOTION))
        return [Promotion(**json.loads(tags[key])) for key in keys]

    def known(self, digest: str) -> ModelVersion | None:
        """Find the version that holds a model of the same bytes, the newest if several do."""
        with self._answers():
            found = self.client.search_model_versions(f"name = '{self.name}'")
        same = [version for version in found if version.tags.get("model_sha256") == digest]
        return max(same, key=lambda version: int(version.version), default=None)

    # --- writing

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one run at a time change the champion; makes the registered model if need be.

        Raises:
            RegistryError: another run has held it for longer than any promotion takes.
        """
        self._create()
        tag = f"{LOCK}{self.run_id}"
        try:
            self._wait_for_turn(tag)
            self._mend()
            yield
        except BaseException:
            # a registry that is gone keeps the tag, and who comes next sees that this run has ended
            with suppress(MlflowException):
                self.client.delete_registered_model_tag(self.name, tag)
            raise
        with self._answers():
            self.client.delete_registered_model_tag(self.name, tag)

    def add_version(self, model_uri: str, digest: str) -> str:
        """Make a logged model a version, without any alias; gives the version's number."""
        # the tags come with the version, so that a crash between two calls cannot lose them
        tags = {"model_uri": model_uri, "model_sha256": digest}
        # it says of every model that it exists already, which lock has seen to
        with self._answers(), redirect_stderr(io.StringIO()):
            made = mlflow.register_model(model_uri, self.name, tags=tags)
        return str(made.version)

    def describe(self, version: str, tags: Mapping[str, str], description: str) -> None:
        """Write what is known of a version."""
        with self._answers():
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, version, key, value)
            self.client.update_model_version(self.name, version, description)

    def challenge(self, version: str) -> None:
        """Give a version that is not to be champion the alias challenger."""
        with self._answers():
            self.client.set_registered_model_alias(self.name, CHALLENGER, version)

    def promote(self, version: str, *, action: str, why: str) -> None:
        """Make a version the champion and write it into the history, holding the lock.

        Raises:
            RegistryError: it went away half way; the champion is the old one or this one.
        """
        aliases, history = self._aliases(), self.history()
        entry = Promotion(
            action=action,
            version=version,
            over=aliases.get(CHAMPION, ""),
            at=now(),
            by=self.developer,
            run_id=self.run_id,
            why=why,
            state=BEGUN,
        )
        number = len(history) + 1
        try:
            # the history first: whatever happens next, nothing becomes champion without a trace
            self._write(number, entry)
            with self._answers():
                self.client.set_registered_model_alias(self.name, CHAMPION, version)
                if aliases.get(CHALLENGER) == version:
                    self.client.delete_registered_model_alias(self.name, CHALLENGER)
            self._write(number, entry._replace(state=DONE))
        except RegistryError as error:
            before = f"version {entry.over}" if entry.over else "none, as before,"
            raise RegistryError(
                f"{error} It went away while version {version} was becoming champion of "
                f"{self.name}: the champion is {before} or version {version}. Run this again with "
                f"the same run ids; that ends with one of them and mends the history."
            ) from error

    def roll_back(self, version: str, *, why: str) -> None:
        """Put an earlier version back, and mark the one it replaces, holding the lock."""
        replaced = self._aliases().get(CHAMPION)
        self.promote(version, action=ROLL_BACK, why=why)
        if replaced:
            with self._answers():
                self.client.set_model_version_tag(self.name, replaced, ROLLED_BACK, now())

    # --- the lock

    def _create(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise self._error(error) from error

    def _wait_for_turn(self, tag: str) -> None:
        """Draw a ticket as in a bakery and wait until no smaller one is left.

        Source: Lamport, A new solution of Dijkstra's concurrent programming problem, 1974.
        """
        self._set_ticket(tag, 0)  # 0: drawing; nobody may overtake who draws
        mine = 1 + max(ticket["ticket"] for ticket in self._tickets().values())
        self._set_ticket(tag, mine)
        started = time.monotonic()
        while before := self._before(tag, mine):
            if time.monotonic() - started > PATIENCE_S:
                first = before[0]
                raise RegistryError(
                    f"Run {first.removeprefix(LOCK)} has been changing the champion of "
                    f"{self.name} for {PATIENCE_S / 60:.0f} minutes. If it is dead, delete the tag "
                    f"{first} of the registered model."
                )
            time.sleep(POLL_S)

    def _before(self, tag: str, mine: int) -> list[str]:
        """List the tags of those whose turn is first, having cleared away those who are gone."""
        others = {key: ticket for key, ticket in self._tickets().items() if key != tag}
        first = {
            key: ticket for key, ticket in others.items() if (ticket["ticket"], key) < (mine, tag)
        }
        gone = [key for key, ticket in first.items() if self._is_gone(key, ticket)]
        with self._answers():
            for key in gone:
                self.client.delete_registered_model_tag(self.name, key)
        return sorted(set(first) - set(gone))

    def _tickets(self) -> dict[str, dict[str, Any]]:
        return {
            key: json.loads(value) for key, value in self._tags().items() if key.startswith(LOCK)
        }

    def _set_ticket(self, tag: str, number: int) -> None:
        with self._answers():
            value = json.dumps({"ticket": number, "at": now(), **processes.tags()})
            self.client.set_registered_model_tag(self.name, tag, value)

    def _is_gone(self, tag: str, ticket: Mapping[str, str]) -> bool:
        """Tell whether who holds a ticket has ended: its run has, or its process."""
        if processes.is_dead(ticket):
            return True
        try:
            status = self.client.get_run(tag.removeprefix(LOCK)).info.status
        except MlflowException:  # a run of another store: nobody here can know
            return False
        return bool(RunStatus.is_terminated(RunStatus.from_string(status)))

    # --- the history

    def _mend(self) -> None:
        """Say how a promotion ended that broke off: holding the lock, nobody is in the middle."""
        champion = self._aliases().get(CHAMPION)
        for number, entry in enumerate(self.history(), start=1):
            if entry.state == BEGUN:
                state = DONE if entry.version == champion else BROKEN_OFF
                self._write(number, entry._replace(state=state))

    def _write(self, number: int, entry: Promotion) -> None:
        with self._answers():
            key = f"{PROMOTION}{number:04}"
            self.client.set_registered_model_tag(self.name, key, json.dumps(entry._asdict()))

    # --- asking the server

    def _aliases(self) -> dict[str, str]:
        model = self._model()
        return {alias: str(version) for alias, version in model.aliases.items()} if model else {}

    def _tags(self) -> dict[str, str]:
        model = self._model()
        return dict(model.tags) if model else {}

    def _model(self) -> Any:
        try:
            return self.client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise self._error(error) from error

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            raise self._error(error) from error

    def _error(self, error: MlflowException) -> RegistryError:
        # the message may quote the server's address, password and all
        reason = re.sub(r"(?<=://)[^/\s]*@", "", one_line(error))
        return RegistryError(f"Cannot use registered model {self.name!r}: {reason}.")


def previous(history: Sequence[Promotion], champion: str) -> str | None:
    """Find which version was champion before this one, whatever was rolled back since.

    Promotions pile up and rollbacks take one off. A champion that was put in place by hand lies on
    top of the pile.
    """
    pile: list[str] = []
    for entry in history:
        if entry.state == BROKEN_OFF:
            continue
        if entry.version in pile and entry.action == ROLL_BACK:
            del pile[pile.index(entry.version) + 1 :]
            continue
        pile += [
            version for version in (entry.over, entry.version) if version not in ("", *pile[-1:])
        ]
    if champion in pile:
        # the last place it was put in
        del pile[len(pile) - 1 - pile[::-1].index(champion) :]
    return pile[-1] if pile else None


def now() -> str:
    """Give the time, UTC, as text that sorts."""
    return datetime.now(UTC).isoformat(timespec="seconds")
