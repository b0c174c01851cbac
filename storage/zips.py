"""Zips that came from elsewhere, any byte of which may be another than was written."""

import zipfile
import zlib

# what reading a member may end in; RuntimeError is zipfile's for one that is encrypted
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # each other one has errors of its own


def check_methods(archive: zipfile.ZipFile) -> None:
    """Refuse a zip that is packed in another way than all zips are that a run reads.

    Raises:
        BadZipFile: it is.
    """
    for member in archive.infolist():
        if member.compress_type not in METHODS:
            method = member.compress_type
            raise zipfile.BadZipFile(f"{member.filename} in it is packed by method {method}")
