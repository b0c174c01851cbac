"""A temporary folder for data that does not fit in memory."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from storage import StorageError

GIB = 1 << 30


@contextmanager
def scratch_folder(n_bytes: int) -> Iterator[str]:
    """Yield a temporary folder, in TMPDIR if set, with room for n_bytes; an empty text for none.

    Raises:
        StorageError: the disk has no room for them.
    """
    if not n_bytes:
        yield ""
        return
    with TemporaryDirectory(prefix="scratch-") as folder:
        free = shutil.disk_usage(folder).free
        if free < n_bytes:
            raise StorageError(
                f"{Path(folder).parent} has {free / GIB:.1f} GiB left, and it takes "
                f"{n_bytes / GIB:.1f} to train on so many trips. Make room there, or set TMPDIR to "
                "a folder that has it."
            )
        yield folder
