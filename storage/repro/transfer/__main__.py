"""Take a pipeline from one store into another: as one file, with all that belongs to it.

python -m storage.repro.transfer export <run id> <file>, and on the other store ... import <file>
"""

import argparse
import hashlib
import sys
from pathlib import Path

import mlflow

from storage import UserError, environment, terminal
from storage.repro.transfer.export_file import Manifest, opened
from storage.repro.transfer.exporting import export
from storage.repro.transfer.importing import Import
from storage.tracking import pages, store
from storage.uris import without_credentials

RERUN_HINT = "Run this again: what is already there is kept."


def main(argv: list[str] | None = None) -> None:
    """Export or import and print the result; exit with 2 on an error that the user can mend."""
    environment.tolerate_output_errors()
    terminal.quieten()
    parser = argparse.ArgumentParser(prog="transfer", description=__doc__)
    parser.add_argument("direction", choices=["export", "import"])
    parser.add_argument("words", nargs="*", help="<run id> <file> to export, <file> to import")
    given = parser.parse_args(argv)
    words = [word.strip() for word in given.words if word.strip()]
    try:
        with store.loss_as_error(RERUN_HINT):
            lines = export_run(words) if given.direction == "export" else import_file(words)
    except UserError as error:
        print(f"{given.direction}: {error}", file=sys.stderr)
        sys.exit(2)
    for line in lines:
        print(f"{given.direction}: {line}")


def export_run(words: list[str]) -> list[str]:
    """Export a run to a file; return the lines to print."""
    if len(words) != 2:
        raise UserError("Name the run and the file: make export RUN=<id> FILE=<path>.")
    run_id, path = words[0], Path(words[1])
    if not store.exists():
        raise UserError(f"No run {run_id!r}: there is no store yet. Set MLFLOW_TRACKING_URI.")
    manifest = export(run_id, path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    n_bytes = path.stat().st_size
    return [f"{path}: {counts(manifest)}, {n_bytes / 1e6:.1f} MB", f"its sha256 is {sha256}"]


def import_file(words: list[str]) -> list[str]:
    """Import a file into this store; return the lines to print."""
    if len(words) != 1:
        raise UserError("Name the file: make import FILE=<path>.")
    with opened(Path(words[0])) as file:
        store.prepare_store()
        importing = Import(file)
        run_id = importing.run()
    run = mlflow.get_run(run_id)
    n_new = len(file.manifest.runs) - len(importing.done)
    n_back = importing.n_restored
    place = mlflow.get_experiment(run.info.experiment_id).name
    uri = without_credentials(mlflow.get_tracking_uri())
    link = pages.address(pages.run_link(run.info.experiment_id, run_id))
    return [
        f"{counts(file.manifest)} of {file.manifest.store}: {n_new} of the runs were not there yet",
        *([f"files that were lost here and are put back: {n_back}"] if n_back else []),
        *importing.lines,
        f"run {file.manifest.run_id} is {run_id} in experiment {place} of {uri}: {link}",
    ]


def counts(manifest: Manifest) -> str:
    """Return how many runs, models, versions and files an export has, as text."""
    n_files = sum(map(len, manifest.folders()))
    numbers = {
        "run": len(manifest.runs),
        "model": len(manifest.models),
        "version": len(manifest.versions),
        "file": n_files,
    }
    return ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in numbers.items())


if __name__ == "__main__":
    main()
