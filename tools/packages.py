"""What is installed in an environment, read from its files: none of it is imported."""

import csv
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path


def installed(folders: Iterable[Path]) -> dict[str, Path]:
    """List the packages of some folders, as Python searches them: name -> what is noted of it."""
    found = [note for folder in folders for note in sorted(folder.glob("*.dist-info"))]
    return {_name(note): note for note in reversed(found)}


def deviation(name: str, wanted: str, packages: Mapping[str, Path]) -> str:
    """Say how a package differs from the locked one: missing, another version, not whole."""
    if name not in packages:
        return f"{name} is missing"
    version = packages[name].stem.partition("-")[2]
    if version != wanted:
        return f"{name} {version} instead of {wanted}"
    return "" if _is_whole(packages[name]) else f"{name} is not whole"


def _name(note: Path) -> str:
    return re.sub(r"[-_.]+", "-", note.name.partition("-")[0]).lower()


def _is_whole(note: Path) -> bool:
    """Whether each file is there that the package was installed with."""
    record = note / "RECORD"
    if not record.is_file():
        return False
    rows = csv.reader(record.read_text(encoding="utf-8").splitlines())
    files = (row[0] for row in rows if row and not row[0].endswith(".pyc"))
    return all(os.path.exists(note.parent / name) for name in files)  # noqa: PTH110  many
