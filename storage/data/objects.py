"""Small files that several machines share: a path, or a URI of any store (file, s3, gs, memory)."""

from pathlib import Path
from tempfile import TemporaryFile

from storage import StorageError, one_line
from storage.data.downloads import open_object_store
from storage.data.files import whole_file
from storage.uris import expand_home, file_path, without_credentials


def read_object(uri: str) -> bytes | None:
    """Read a whole file; None where there is none.

    Raises:
        StorageError: it is there and cannot be read, or nobody says whether it is.
    """
    try:
        if path := local_path(uri):
            return path.read_bytes()
        fs, remote = open_object_store(uri)
        return bytes(fs.cat_file(remote))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _refused("read", uri, error) from error


def write_object(uri: str, content: bytes) -> None:
    """Write a whole file, so that a reader sees the old one or the new one.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        if path := local_path(uri):
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as unfinished:
                unfinished.write_bytes(content)
            return
        fs, remote = open_object_store(uri)
        fs.pipe_file(remote, content)  # stores of objects put each at once or not at all
    except (OSError, ValueError) as error:
        raise _refused("write", uri, error) from error


def check_object_writable(uri: str) -> None:
    """Make sure that a file of this machine can be written; a store elsewhere is not asked.

    Raises:
        StorageError: it cannot be written, or is of the web, which is only read.
    """
    if uri.lower().startswith(("http://", "https://")):
        raise StorageError(
            f"Cannot write {without_credentials(uri)}: what is on the web is only read. Pass a "
            "path, or a URI of file, s3 or gs."
        )
    if path := local_path(uri):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=path.parent).close()
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
        except (OSError, ValueError) as error:
            raise _refused("write", uri, error) from error


def local_path(uri: str) -> Path | None:
    """Return the path that a URI means on this machine; None where it is of a store elsewhere.

    Raises:
        StorageError: it is a file's, and names no whole path.
    """
    path = file_path(uri)
    if path != uri:
        if not Path(path).is_absolute():
            raise StorageError(f"{uri} is no file of this machine. Write it file:///<path>.")
        return Path(path)
    return None if "://" in uri else expand_home(uri)


def _refused(verb: str, uri: str, error: Exception) -> StorageError:
    reason = one_line(error)
    return StorageError(
        f"Cannot {verb} {without_credentials(uri)}: {reason}. Check the address and your access."
    )
