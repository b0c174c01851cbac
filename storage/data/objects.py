"""Small files that several machines share: a path, or a URI of any store (file, s3, gs, memory)."""

from pathlib import Path
from tempfile import TemporaryFile

from storage import StorageError, one_line
from storage.data.downloads import open_object_store
from storage.data.files import atomic_file
from storage.uris import expand_home, file_path, without_credentials


def read_object(uri: str) -> bytes | None:
    """Read a whole file; None if there is none.

    Raises:
        StorageError: it cannot be read, or the store does not answer.
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
    """Write a whole file atomically: a reader sees either the old one or the new one.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        if path := local_path(uri):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as unfinished:
                unfinished.write_bytes(content)
            return
        fs, remote = open_object_store(uri)
        fs.pipe_file(remote, content)  # object stores write an object atomically
    except (OSError, ValueError) as error:
        raise _refused("write", uri, error) from error


def check_object_writable(uri: str) -> None:
    """Make sure that a local file can be written; a remote store is not asked.

    Raises:
        StorageError: it cannot be written, or is on the web, which is read-only.
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
    """Return the local path that a URI means; None if it is of a remote store.

    Raises:
        StorageError: it begins with file:// and names no absolute path.
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
