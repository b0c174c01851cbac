"""What is installed in an environment, read from its files: nothing is imported."""

import csv
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path


def installed(folders: Iterable[Path]) -> dict[str, Path]:
    """List the packages in some folders, the first folder wins: name -> its dist-info folder."""
    found = [note for folder in folders for note in sorted(folder.glob("*.dist-info"))]
    return {_name(note): note for note in reversed(found)}


def deviation(name: str, locked: str, packages: Mapping[str, Path]) -> str:
    """Say how a package differs from the lock: missing, another version, incomplete; else empty."""
    if name not in packages:
        return f"{name} is missing"
    version = packages[name].stem.partition("-")[2]
    if version != locked:
        return f"{name} {version} instead of {locked}"
    return "" if _is_complete(packages[name]) else f"{name} is not whole"


def find_gaps(packages: Mapping[str, Path]) -> list[str]:
    """List the gaps that a killed install has left: missing requirements, incomplete packages."""
    needed = {name for note in packages.values() for name in _needs(note)}
    missing = [f"{name} is missing" for name in sorted(needed - set(packages))]
    return missing + [
        f"{name} is not whole" for name in packages if not _is_complete(packages[name])
    ]


def _needs(note: Path) -> list[str]:
    """List the requirements that a package has on any machine."""
    metadata = note / "METADATA"
    text = metadata.read_text(encoding="utf-8") if metadata.is_file() else ""
    # a line with a ; is for some machines or extras only
    return [_normal(name) for name in re.findall(r"^Requires-Dist: ([\w.-]+)[^;\n]*$", text, re.M)]


def _name(note: Path) -> str:
    return _normal(note.name.partition("-")[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_complete(note: Path) -> bool:
    """Whether all files of a package are there."""
    record = note / "RECORD"
    if not record.is_file():
        return False
    rows = csv.reader(record.read_text(encoding="utf-8").splitlines())
    files = (row[0] for row in rows if row and not row[0].endswith(".pyc"))
    return all(os.path.exists(note.parent / name) for name in files)  # noqa: PTH110  many
