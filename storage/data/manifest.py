"""Checks files against a SHA256SUMS beside them, as `sha256sum` writes and checks it."""

import re
from pathlib import Path

from storage import StorageError
from storage.data.digest import sha256_of
from storage.data.parts import part_files

SHA256SUMS = "SHA256SUMS"
# the two formats of sha256sum: <hash>  <name>, and that of BSD
LINE = re.compile(
    r"(?P<hash>[0-9a-f]{64}) [ *](?P<name>.+)|SHA256 \((?P<name_2>.+)\) = (?P<hash_2>[0-9a-f]{64})",
    re.IGNORECASE,
)


def check_listed(path: Path) -> None:
    """Check the sha256 of a file, or of each part of a folder, if a manifest beside it lists it.

    Raises:
        StorageError: it differs, or the manifest is malformed.
        OSError: the manifest cannot be read.
    """
    manifest = path.parent / SHA256SUMS
    if not manifest.is_file():
        return
    listed = read_manifest(manifest)
    for file in part_files(path):
        name = file.relative_to(path.parent).as_posix()
        if name in listed and (seen := sha256_of(file)) != listed[name]:
            raise StorageError(
                f"{file} is not the file that {SHA256SUMS} beside it lists: its sha256 is {seen}, "
                f"there it is {listed[name]}. Fetch the file again, or fix {SHA256SUMS}."
            )


def read_manifest(path: Path) -> dict[str, str]:
    """Read a manifest: name -> sha256.

    Raises:
        StorageError: a line is not as sha256sum writes it.
    """
    listed = {}
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        match = LINE.fullmatch(line.strip("\ufeff "))
        if match:
            name = match["name"] or match["name_2"]
            listed[name.removeprefix("./")] = (match["hash"] or match["hash_2"]).lower()
        elif line.strip():
            raise StorageError(
                f"{path}: line {number} is not as sha256sum writes it: {line[:80]!r}. "
                f"Write it again: sha256sum *.parquet > {SHA256SUMS}"
            )
    return listed
