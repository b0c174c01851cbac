"""Make the previous champion, or any former one, champion again."""

from steps.common.results import write_registration
from steps.register.verdict import MODEL_DESCRIPTION
from storage import UserError
from storage.tracking import models
from storage.tracking.registry import (
    CHAMPION,
    PROMOTE,
    ROLL_BACK,
    Registry,
    former_champions,
    previous,
)

NEVER_CHAMPION = (
    "No champion of {name} was ever promoted, so none can be restored. Check model_name; "
    "docs/champion.md says how to set alias champion by hand."
)
NO_HISTORY = (
    "{name} had no champion before {before}, or it is deleted. The history is in the tags "
    "promotion.* of the registered model; docs/champion.md says how to set alias champion by hand."
)

NO_CHAMPION = (
    "Version {version} of {name} is not a former champion, or is deleted. Former champions: "
    "{former}. Any other version must pass the gate of register."
)
IS_CHAMPION = "Version {version} of {name} is already the champion: nothing to restore."
CHAMPION_CHANGED = (
    "The champion of {name} was version {seen} when this began, and is version {now} by now: a "
    "rollback would remove the wrong one. Check version {now}; to roll it back, run this again."
)


def restore_champion(registry: Registry, version: str = "") -> str:
    """Make a former champion champion again; return a line that says so.

    Args:
        registry: for the model's name.
        version: the former champion, even if it was rolled back. Empty = the one before the current
            champion, which is then marked as rolled back.
    Raises:
        UserError: there is none, or the champion to be rolled back has changed in the meantime.
        StorageError: the former champion's files are gone.
    """
    if not registry.history():  # taking the lock would create a registered model of this name
        raise UserError(NEVER_CHAMPION.format(name=registry.name))
    seen = registry.aliases().get(CHAMPION, "none")  # it may change while the lock is waited for
    with registry.lock():
        replaced = registry.aliases().get(CHAMPION, "none")
        if replaced != seen and not version:
            raise UserError(CHAMPION_CHANGED.format(name=registry.name, seen=seen, now=replaced))
        chosen = check_former_champion(registry, version, replaced)
        chosen = chosen or find_previous_champion(registry, replaced)
        models.load(f"models:/{registry.name}/{chosen}")
        if version:
            why = f"restore={version}: replaced version {replaced}"
            registry.restore(chosen, why=why)
        else:
            why = f"rollback=true: version {replaced} rolled back"
            registry.roll_back(chosen, why=why)
        registry.describe_model(MODEL_DESCRIPTION)
    write_registration(
        model_name=registry.name,
        version=chosen,
        champion_version=chosen,
        outcome=PROMOTE if version else ROLL_BACK,
        reasons=why,
    )
    return (
        f"{registry.name}: version {chosen} is champion again, in place of version {replaced}. "
        "Restart servers of the champion: each keeps the version that it started with"
    )


def find_previous_champion(registry: Registry, champion: str) -> str:
    """Find the champion before this one; `champion` is "none" if there is none now.

    Raises:
        UserError: there is none.
    """
    version = previous(registry.history(), champion, registry.versions())
    if not version:
        before = "this" if champion == "none" else f"version {champion}"
        raise UserError(NO_HISTORY.format(name=registry.name, before=before))
    return version


def check_former_champion(registry: Registry, version: str, champion: str) -> str:
    """Check that a version was champion and is not now, and return it; empty stays empty.

    Raises:
        UserError: it never was champion, is deleted, or is champion now.
    """
    if version and version == champion:
        raise UserError(IS_CHAMPION.format(version=version, name=registry.name))
    former = former_champions(registry.history()) & registry.versions() - {champion}
    if version and version not in former:
        shown = ", ".join(sorted(former, key=int)) or "none"
        raise UserError(NO_CHAMPION.format(version=version, name=registry.name, former=shown))
    return version
