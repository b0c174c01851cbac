"""A month in one file or in several: the folder of parts that Spark, DuckDB and Dask write."""

import hashlib
import re
from pathlib import Path

from storage import StorageError
from storage.data.digest import sha256_of

SUFFIXES = (".parquet", ".csv", ".csv.gz")  # in the order they are tried


def part_files(path: Path) -> list[Path]:
    """List the files of a month, a file or a folder, in the order they were written in.

    Raises:
        StorageError: there is none in the folder.
    """
    if not path.is_dir():
        return [path]
    found = [file for file in path.rglob("*") if is_part(file.relative_to(path)) and file.is_file()]
    if not found:
        raise StorageError(
            f"{path} is a folder without parts: no file in it ends in {', '.join(SUFFIXES)}. "
            "Write it anew, or put the month's own file in its place."
        )
    return sorted(found, key=lambda file: in_order(file.relative_to(path).as_posix()))


def is_part(path: Path) -> bool:
    """Whether a file of a folder is a part, and not a mark such as _SUCCESS or a checksum."""
    is_hidden = any(name.startswith(("_", ".")) for name in path.parts)
    return not is_hidden and path.name.lower().endswith(SUFFIXES)


def in_order(name: str) -> list[tuple[int, str]]:
    """Sort numbers in names as numbers: part.2.parquet comes before part.10.parquet."""
    words = re.split(r"(\d+)", name)
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]


def digest_of(path: Path) -> str:
    """Hash a month: the bytes of its file, or the names and hashes of its parts."""
    if not path.is_dir():
        return sha256_of(path)
    names = {file.relative_to(path).as_posix(): file for file in part_files(path)}
    lines = [f"{sha256_of(file)}  {name}\n" for name, file in names.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def n_bytes(path: Path) -> int:
    """Count the bytes of a month, a file or a folder of parts."""
    return sum(file.stat().st_size for file in part_files(path))
