"""Zips from elsewhere, any byte of which may be damaged."""

import zipfile
import zlib

# what reading a damaged zip may raise; RuntimeError is zipfile's for an encrypted member
DAMAGED_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # the others raise errors of their own


def check_methods(archive: zipfile.ZipFile) -> None:
    """Refuse a zip with a compression method other than METHODS.

    Raises:
        BadZipFile: it has one.
    """
    for member in archive.infolist():
        if member.compress_type not in METHODS:
            method = member.compress_type
            raise zipfile.BadZipFile(f"{member.filename} in it is packed by method {method}")
