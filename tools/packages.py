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


def holes(packages: Mapping[str, Path]) -> list[str]:
    """List what a killed install has left: packages that another needs, or that are not whole."""
    needed = {name for note in packages.values() for name in _needs(note)}
    missing = [f"{name} is missing" for name in sorted(needed - set(packages))]
    return missing + [f"{name} is not whole" for name in packages if not _is_whole(packages[name])]


def _needs(note: Path) -> list[str]:
    """List the packages that a package cannot do without, on any machine."""
    about = note / "METADATA"
    text = about.read_text(encoding="utf-8") if about.is_file() else ""
    # a line with a ; holds for some machines or extras only
    return [_normal(name) for name in re.findall(r"^Requires-Dist: ([\w.-]+)[^;\n]*$", text, re.M)]


def _name(note: Path) -> str:
    return _normal(note.name.partition("-")[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_whole(note: Path) -> bool:
    """Whether each file is there that the package was installed with."""
    record = note / "RECORD"
    if not record.is_file():
        return False
    rows = csv.reader(record.read_text(encoding="utf-8").splitlines())
    files = (row[0] for row in rows if row and not row[0].endswith(".pyc"))
    return all(os.path.exists(note.parent / name) for name in files)  # noqa: PTH110  many
