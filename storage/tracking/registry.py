"""A registered model: its versions, its champion, and the history of its champions.

A promotion holds the lock of registry_lock.py: pipelines that share a server take turns, whatever
hosts they run on, so that each is measured against the current champion.
"""

import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from storage import one_line
from storage.tracking import duplicates, refusals, tags
from storage.tracking.query import both, equals
from storage.tracking.registry_lock import RegistryError, RegistryLock, utc_now
from storage.uris import without_credentials, without_user

CHAMPION, CHALLENGER = "champion", "challenger"
BEGUN, DONE, BROKEN_OFF = "begun", "done", "broken off"
N_SHOWN = 20  # latest changes of the champion, on the page of the registered model
HISTORY_HEADER = "| when (UTC) | champion | in place of | how | who | why |"
PROMOTE, ROLL_BACK = "promoted", "rolled back"


class Promotion(NamedTuple):
    """One change of the champion, as stored in a tag of the registered model."""

    action: str  # PROMOTE or ROLL_BACK
    version: str  # the new champion
    over: str  # the previous champion; empty if there was none
    at: str  # UTC
    by: str  # developer
    run_id: str
    why: str
    state: str  # BEGUN until the alias is set, then DONE; BROKEN_OFF if it never was


class Registry:
    """One registered model, as one run uses it; reading needs no run id."""

    def __init__(self, name: str, *, run_id: str = "", developer: str = "") -> None:
        self.name = name
        self.run_id = run_id
        self.developer = developer
        self.client = MlflowClient()

    # --- reading

    def champion(self) -> ModelVersion | None:
        """Look up the version with alias champion; None if there is none."""
        version = self.aliases().get(CHAMPION)
        with self._answers():
            return self.client.get_model_version(self.name, version) if version else None

    def aliases(self) -> dict[str, str]:
        """Return alias -> version; empty if there is no registered model."""
        model = self._model()
        return {alias: str(version) for alias, version in model.aliases.items()} if model else {}

    def page(self) -> str:
        """Return the page of the registered model; empty if there is none."""
        model = self._model()
        return str(model.description or "") if model else ""

    def history(self) -> list[Promotion]:
        """List every change of the champion, oldest first."""
        changes = tags.PROMOTION.select(self._tags())
        return [Promotion(**json.loads(changes[number])) for number in sorted(changes)]

    def versions(self) -> set[str]:
        """Return the numbers of all versions that exist."""
        with self._answers():
            found = self.client.search_model_versions(equals("name", self.name))
        return {str(version.version) for version in found}

    def find_version(self, digest: str) -> ModelVersion | None:
        """Find the newest version whose model has this digest; None if there is none."""
        return max(
            self._versions_with_digest(digest),
            key=lambda version: int(version.version),
            default=None,
        )

    def _versions_with_digest(self, digest: str) -> list[ModelVersion]:
        condition = both(equals("name", self.name), equals(f"tags.{tags.MODEL_SHA256}", digest))
        with self._answers():
            return list(self.client.search_model_versions(condition))

    # --- writing

    def check_writable(self) -> None:
        """Refuse a registered model that this user may not change, before any work.

        Raises:
            RegistryError: this user may not change it, or the registry does not answer.
        """
        if self._model() is None:  # whoever creates it may change it
            return
        try:
            # this tag is never set, so its deletion changes nothing and tests the permission alone
            self.client.delete_registered_model_tag(self.name, tags.PROMOTING.of("nobody"))
        except MlflowException as error:
            is_away = refusals.is_unreachable(error)
            hint = "" if is_away else " Or pass test_only=true, which changes none."
            raise RegistryError(f"{self._error(error)}{hint}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one run at a time change the champion; create the registered model if needed.

        Raises:
            RegistryError: another run has held it for longer than any promotion takes.
        """
        self._create()
        lock = RegistryLock(
            self.client, self.name, self.run_id, read_tags=self._tags, answers=self._answers
        )
        with lock.hold():
            self._record_interrupted_promotions()
            yield

    def add_version(self, model_uri: str, digest: str) -> str:
        """Register a logged model as a version without an alias; return the version's number.

        The caller must hold the lock: then any other new version with this digest is a duplicate
        from a retried request.
        """
        before = {version.version for version in self._versions_with_digest(digest)}
        # the tags are set with the version, so that a crash between two calls cannot lose them
        tag_values = {str(tags.MODEL_URI): model_uri, str(tags.MODEL_SHA256): digest}
        # it prints that the registered model exists, which is always so: `lock` creates it
        with self._answers(), redirect_stderr(io.StringIO()):
            made = mlflow.register_model(model_uri, self.name, tags=tag_values)
        after = {version.version for version in [made, *self._versions_with_digest(digest)]}
        added = [str(number) for number in after - before]
        with self._answers():
            return duplicates.keep_first_version(self.client, self.name, added)

    def describe(self, version: str, tag_values: Mapping[str, str], description: str) -> None:
        """Write the tags and the page of a version."""
        with self._answers():
            for key, value in tag_values.items():
                self.client.set_model_version_tag(self.name, version, key, value)
            self.client.update_model_version(self.name, version, description)

    def describe_model(self, description: str) -> None:
        """Write the page of the registered model: what it is, and the history of its champions.

        Args:
            description: what it is, markdown.
        """
        model, text = self._model(), f"{description}\n\n{history_table(self.history())}"
        if model and model.description != text:
            with self._answers():
                self.client.update_registered_model(self.name, text)

    def set_challenger(self, version: str) -> None:
        """Give the alias challenger to a version that was not promoted."""
        with self._answers():
            self.client.set_registered_model_alias(self.name, CHALLENGER, version)

    def promote(self, version: str, *, action: str, why: str) -> None:
        """Make a version the champion and record it in the history; the caller holds the lock.

        Raises:
            RegistryError: the registry failed halfway; champion is the old version or this one.
        """
        aliases, history = self.aliases(), self.history()
        entry = Promotion(
            action=action,
            version=version,
            over=aliases.get(CHAMPION, ""),
            at=utc_now(),
            by=self.developer,
            run_id=self.run_id,
            why=why,
            state=BEGUN,
        )
        number = len(history) + 1
        try:
            # history first: whatever happens next, no version becomes champion without a trace
            self._write_entry(number, entry)
            with self._answers():
                self.client.set_registered_model_alias(self.name, CHAMPION, version)
                if aliases.get(CHALLENGER) == version:
                    self.client.delete_registered_model_alias(self.name, CHALLENGER)
            self._write_entry(number, entry._replace(state=DONE))
        except RegistryError as error:
            before = f"version {entry.over}" if entry.over else "none, as before,"
            raise RegistryError(
                f"{error} It went away while version {version} was becoming champion of "
                f"{self.name}: the champion is {before} or version {version}. Run this again with "
                f"the same run ids; that settles it and repairs the history."
            ) from error

    def roll_back(self, version: str, *, why: str) -> None:
        """Promote an earlier version and mark the one it replaces; the caller holds the lock."""
        replaced = self.aliases().get(CHAMPION)
        self.promote(version, action=ROLL_BACK, why=why)
        if replaced:
            with self._answers():
                self.client.set_model_version_tag(self.name, replaced, tags.ROLLED_BACK, utc_now())

    def restore(self, version: str, *, why: str) -> None:
        """Promote a former champion, and unmark it if rolled back; the caller holds the lock."""
        self.promote(version, action=PROMOTE, why=why)
        with self._answers():
            if tags.ROLLED_BACK in self.client.get_model_version(self.name, version).tags:
                self.client.delete_model_version_tag(self.name, version, tags.ROLLED_BACK)

    def _create(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise self._error(error) from error

    # --- the history

    def _record_interrupted_promotions(self) -> None:
        """Record how interrupted promotions ended: under the lock, none is still in progress."""
        champion = self.aliases().get(CHAMPION)
        for number, entry in enumerate(self.history(), start=1):
            if entry.state == BEGUN:
                state = DONE if entry.version == champion else BROKEN_OFF
                self._write_entry(number, entry._replace(state=state))

    def _write_entry(self, number: int, entry: Promotion) -> None:
        with self._answers():
            key = tags.PROMOTION.of(f"{number:04}")
            self.client.set_registered_model_tag(self.name, key, json.dumps(entry._asdict()))

    # --- asking the server

    def _tags(self) -> dict[str, str]:
        model = self._model()
        return dict(model.tags) if model else {}

    def _model(self) -> RegisteredModel | None:
        try:
            return self.client.get_registered_model(self.name)
        except MlflowException as error:
            if refusals.is_missing(error):
                return None
            raise self._error(error) from error

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            raise self._error(error) from error

    def _error(self, error: MlflowException) -> RegistryError:
        # the message may quote the server's address, including a password
        reason = refusals.explain_refusal(error) or f"{without_user(one_line(error))}."
        where = without_credentials(mlflow.get_registry_uri())
        return RegistryError(f"Cannot use registered model {self.name!r} at {where}: {reason}")


def history_table(history: Sequence[Promotion]) -> str:
    """Format the changes of the champion as a markdown table, newest first."""
    lines = [HISTORY_HEADER, "|---" * 6 + "|"]
    for entry in list(reversed(history))[:N_SHOWN]:
        how = entry.action if entry.state == DONE else f"{entry.action}, {entry.state}"
        at = entry.at[:16].replace("T", " ")
        cells = (at, entry.version, entry.over or "none", how, entry.by, entry.why)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    if len(history) > N_SHOWN:
        lines += ["", f"{len(history) - N_SHOWN} before that are in the tags {tags.PROMOTION}*"]
    return "\n".join(lines)


def page_without_history(page: str) -> str:
    """Return the part of a registered model's page before its history."""
    return page.partition(HISTORY_HEADER)[0].rstrip()


def former_champions(history: Sequence[Promotion]) -> set[str]:
    """Return the versions that are or were champion according to a history."""
    kept = (entry for entry in history if entry.state != BROKEN_OFF)
    return {version for entry in kept for version in (entry.version, entry.over)} - {""}


def previous(history: Sequence[Promotion], champion: str, existing: Collection[str]) -> str | None:
    """Find the version that was champion before this one, allowing for rollbacks.

    A promotion puts its version on a stack; a rollback takes off all that lies above its version.
    A champion that was set by hand counts as the top of the stack.

    Args:
        history: changes of the champion, oldest first.
        champion: version of the champion; any other text if there is none.
        existing: versions that still exist.
    Returns:
        The version; None if there is none.
    """
    stack: list[str] = []
    for entry in history:
        if entry.state == BROKEN_OFF:
            continue
        if entry.version in stack and entry.action == ROLL_BACK:
            del stack[stack.index(entry.version) + 1 :]
            continue
        stack += [
            version for version in (entry.over, entry.version) if version not in ("", *stack[-1:])
        ]
    if champion in stack:
        # from its last entry upwards
        del stack[len(stack) - 1 - stack[::-1].index(champion) :]
    return next((version for version in reversed(stack) if version in existing), None)
