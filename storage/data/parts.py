"""A month as one file, or as a folder of parts, which Spark, DuckDB and Dask write."""

import hashlib
import re
from pathlib import Path

from storage import StorageError
from storage.data.digest import sha256_of

SUFFIXES = (".parquet", ".csv", ".csv.gz")  # in the order in which they are tried


def part_files(path: Path) -> list[Path]:
    """List the files of a month, a file or a folder, by name, with numbers in order of size.

    Raises:
        StorageError: the folder has no part, or one that is no file, or a link to a folder.
    """
    if not path.is_dir():
        return [path]
    paths = [file for file in path.rglob("*") if not _is_hidden(file.relative_to(path))]
    found = [file for file in paths if is_part(file.relative_to(path)) and not file.is_dir()]
    for file in paths:
        _check_followed(file)
    for file in found:
        check_file_or_folder(file)
    if not found:
        raise StorageError(
            f"{path} is a folder without parts: no file in it ends in {', '.join(SUFFIXES)}. "
            "Write it again, or put the month's own file in its place."
        )
    return sorted(found, key=lambda file: natural_sort_key(file.relative_to(path).as_posix()))


def is_part(path: Path) -> bool:
    """Whether a file in a folder is a part, not a marker such as _SUCCESS or a checksum."""
    return not _is_hidden(path) and path.name.lower().endswith(SUFFIXES)


def _is_hidden(path: Path) -> bool:
    return any(name.startswith(("_", ".")) for name in path.parts)


def check_file_or_folder(path: Path) -> None:
    """Refuse what is no file or folder: a pipe would block, and a device never ends.

    Raises:
        StorageError: it is neither, or a broken link.
    """
    if not (path.is_file() or path.is_dir()):
        raise StorageError(f"{path} is no file and no folder. Put the month's file in its place.")


def _check_followed(path: Path) -> None:
    """Refuse a link to a folder: it is not followed, so its files would silently be missing."""
    if path.is_symlink() and path.is_dir():
        raise StorageError(
            f"{path} is a link to a folder, which is not followed. Put the folder in its place, or "
            "a folder with links to its files."
        )


def natural_sort_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key with numbers as numbers: part.2.parquet before part.10.parquet."""
    words = re.split(r"(\d+)", name)
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]


def digest_of(path: Path) -> str:
    """Return the sha256 of a month: of its file's bytes, or of its parts' names and hashes."""
    if not path.is_dir():
        return sha256_of(path)
    names = {file.relative_to(path).as_posix(): file for file in part_files(path)}
    lines = [f"{sha256_of(file)}  {name}\n" for name, file in names.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def n_bytes(path: Path) -> int:
    """Return the size, bytes, of a month, a file or a folder of parts."""
    return sum(file.stat().st_size for file in part_files(path))
