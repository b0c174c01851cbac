"""Importing versions of registered models, with tags and pages, without replacing a champion.

A store's champion has passed the gate there: an import takes no alias from another version.
"""

import json

from mlflow.entities.model_registry import ModelVersion

from storage import UserError, checkout, environment
from storage.repro.transfer.export_file import Manifest, VersionRecord
from storage.repro.transfer.id_map import IdMap
from storage.tracking import registry, runs, tags
from storage.tracking.registry import CHALLENGER, CHAMPION, PROMOTE, Registry

# parameters of register that change the candidate, or how it is measured
CHOICE_PARAMETERS = ("refit", "refit_workers", "judge_by", "seed")


def refuse_other_taxis(manifest: Manifest) -> None:
    """Refuse a version that could never be measured against the champion here.

    Raises:
        UserError: they are of different taxis.
        RegistryError: the registry does not answer.
    """
    for record in manifest.versions:
        champion = Registry(record.name).champion()
        taxi, local_taxi = record.tags.get(tags.TAXI), champion and champion.tags.get(tags.TAXI)
        if champion and taxi and local_taxi and taxi != local_taxi:
            raise UserError(
                f"{record.name} is a model of {local_taxi} trips here: version {champion.version}, "
                f"its champion, is. The file's version {record.version} is of {taxi} ones. Import "
                "it into another store, or run its pipeline here with another model_name."
            )


def add_version(manifest: Manifest, record: VersionRecord, id_map: IdMap) -> tuple[str, list[str]]:
    """Add a version, unless one has its digest; return its number here, and lines to print.

    Raises:
        RegistryError: the registry does not answer, or refuses.
    """
    if id_map.ids[record.model_id] == record.model_id:  # the model was made here
        return record.version, []
    developer = checkout.user_name() or environment.login_name()
    # no run of this store: a lock of a run that has ended would count as stale
    held = Registry(record.name, run_id=manifest.run_id, developer=developer)
    existing = held.find_version(record.sha256)
    if existing and tags.ORIGIN_VERSION in existing.tags:
        return str(existing.version), []
    with held.lock():
        existing = held.find_version(record.sha256)
        uri = f"models:/{id_map.ids[record.model_id]}"
        number = str(existing.version) if existing else held.add_version(uri, record.sha256)
        version = held.client.get_model_version(record.name, number)
        tag_values = {
            key: value
            for key, value in imported_tags(record, manifest.store, id_map).items()
            if key not in version.tags
        }
        held.describe(number, tag_values, version.description or id_map.text(record.description))
        lines = assign_free_aliases(held, version, record, manifest, id_map)
        held.describe_model(registry.page_without_history(held.page()) or record.about)
        # last, so that an interrupted import does this again
        origin = f"{record.name} version {record.version} of {manifest.store}"
        held.client.set_model_version_tag(record.name, number, tags.ORIGIN_VERSION, origin)
    return number, lines


def imported_tags(record: VersionRecord, store: str, id_map: IdMap) -> dict[str, str]:
    """Return the tags of a version for this store, with how it became champion there."""
    tag_values = id_map.tags(record.tags)
    if number := record.tags.get(tags.MEASURED_AGAINST, ""):
        existing = id_map.versions.get((record.name, number))
        tag_values[tags.MEASURED_AGAINST] = existing or f"{number} of {store}"
    if record.promotions:
        tag_values[tags.ORIGIN_PROMOTIONS] = json.dumps(
            [json.loads(one) for one in record.promotions]
        )
    return tag_values


def assign_free_aliases(
    held: Registry, version: ModelVersion, record: VersionRecord, manifest: Manifest, id_map: IdMap
) -> list[str]:
    """Give a version those of its aliases that no other version has; return lines to print."""
    number = str(version.version)
    taken = held.aliases()
    aliases = set(record.aliases)
    lines = []
    if CHAMPION in aliases and CHAMPION not in taken:
        why = f"imported from {manifest.store}, where it was champion, and there was none here"
        held.promote(number, action=PROMOTE, why=why)
        lines.append(f"{record.name} version {number} is champion here too: there was none")
    elif CHAMPION in aliases and taken[CHAMPION] != number:
        aliases.add(CHALLENGER)
        lines.append(
            f"{record.name} version {number} was champion there; here version {taken[CHAMPION]} "
            f"is, and stays. To have both measured: {judging_command(record, manifest, id_map)}"
        )
    elif CHAMPION not in taken:
        lines.append(
            f"{record.name} version {number} was not champion there, and there is none here. To "
            f"have it measured: {judging_command(record, manifest, id_map)}"
        )
    for alias in sorted(aliases - {CHAMPION} - set(taken)):
        if alias != CHALLENGER or number != held.aliases().get(CHAMPION):
            held.client.set_registered_model_alias(record.name, alias, number)
    return lines


def judging_command(record: VersionRecord, manifest: Manifest, id_map: IdMap) -> str:
    """Return the command that puts an imported candidate to the gate, made as it was there."""
    tag_values = next(run.tags for run in manifest.runs if run.run_id == manifest.run_id)
    names = (tags.RUN_IDS["baseline"], tags.RUN_IDS["hpo"])
    given = {str(name): id_map.text(tag_values[name]) for name in names if name in tag_values}
    given[str(tags.MODEL_NAME)] = record.name
    for run in manifest.runs:
        if run.tags.get(tags.VERSION) == record.version and run.tags.get(tags.STEP) == "register":
            recorded = {name: runs.recorded_text(run.params, name) for name in CHOICE_PARAMETERS}
            given |= {name: text for name, text in recorded.items() if text is not None}
    return checkout.run_command("register", given, experiment=id_map.experiment)
