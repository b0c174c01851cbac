"""Put the champion before this one back."""

from steps.common.results import write_registration
from steps.register.verdict import ABOUT
from storage import UserError
from storage.tracking import models
from storage.tracking.registry import ROLL_BACK, Registry, previous

NEVER = (
    "No champion of {name} was ever promoted, so none can be put back. Check model_name; "
    "docs/champion.md has how to set alias champion by hand."
)
NO_HISTORY = (
    "No champion of {name} comes before {before}, or it is deleted. Its history is in the tags "
    "promotion.* of the registered model; docs/champion.md has how to set alias champion by hand."
)


def roll_back(registry: Registry) -> str:
    """Put the champion before this one back; returns a line that says so.

    Raises:
        UserError: there is none.
        StorageError: its files are gone.
    """
    if not registry.history():  # the lock would make a model of this name
        raise UserError(NEVER.format(name=registry.name))
    with registry.lock():
        champion = registry.champion()
        replaced = str(champion.version) if champion else "none"
        version = previous(registry.history(), replaced, registry.versions())
        if not version:
            before = f"version {replaced}" if champion else "this"
            raise UserError(NO_HISTORY.format(name=registry.name, before=before))
        models.load(f"models:/{registry.name}/{version}")
        why = f"rollback=true: version {replaced} taken out of use"
        registry.roll_back(version, why=why)
        registry.describe_model(ABOUT)
    write_registration(
        model_name=registry.name,
        version=version,
        champion_version=version,
        outcome=ROLL_BACK,
        reasons=why,
    )
    return (
        f"{registry.name}: version {version} is champion again, in place of version {replaced}. "
        "Start servers of the champion again: each keeps the version that it began with"
    )
