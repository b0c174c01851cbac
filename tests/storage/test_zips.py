"""Zips from elsewhere: with any byte damaged, one is refused in one line."""

import zipfile
from itertools import product
from pathlib import Path

from storage import StorageError
from storage.data import files

ZSTANDARD = 93  # a compression method that Python supports from 3.14 on


def test_a_zip_is_refused_in_a_line_whichever_of_its_bytes_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "taxi_zones.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("taxi_zones.shp", "".join(map(str, range(300))))
    whole, messages = path.read_bytes(), set[str]()
    for place, change in product(range(len(whole)), (0x55, zipfile.ZIP_DEFLATED ^ ZSTANDARD)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        try:
            files.check_complete(path, path.name)
        except StorageError as error:
            messages.add(str(error))
    assert any("while decompressing" in message for message in messages)
    assert any(f"is packed by method {ZSTANDARD}" in message for message in messages)
    assert not any("\n" in message or "whole zip: . " in message for message in messages)
