"""Downloads files from servers and object stores into a cache, completely or not at all."""

import errno
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import requests
from urllib3.exceptions import NameResolutionError, NewConnectionError

from storage import StorageError, one_line
from storage.data import files
from storage.data.cache import cache_folder
from storage.data.files import BrokenFileError
from storage.data.streams import CHUNK_BYTES
from storage.terminal import Progress
from storage.uris import without_credentials

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# pooch and fsspec are imported where they are used: a local folder needs neither

TIMEOUT_S = 30.0  # a server silent for longer has failed
SIZE_TIMEOUT_S = 5.0  # a plan can do without a size, but should not wait
BACK_OFF_S = (2.0, 8.0, 0.0)  # after each request to a server that may limit them
RETRIES = 3  # after the first attempt; pooch waits 1, 2, 3 s between them
STORE_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}


class IncompleteError(ValueError):
    """An incomplete download; a ValueError, after which pooch discards it and retries."""


class RefusedError(Exception):
    """The server will not give this file, however often it is asked; holds the HTTP status."""


class OfflineError(Exception):
    """This machine has no network connection, so that a retry is useless."""


def is_offline(error: requests.RequestException) -> bool:
    """Whether a request failed because this machine has no network connection."""
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(cause, NameResolutionError):
        return True
    failed = cause.__cause__ if isinstance(cause, NewConnectionError) else None
    number = failed.errno if isinstance(failed, OSError) else None
    return number in (errno.ENETUNREACH, errno.ENETDOWN)


def reason(error: Exception) -> str:
    """Return in one line, without any address, why a file could not be read."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return type(error).__name__  # its text quotes the address
    if isinstance(error, ValueError) and not isinstance(error, IncompleteError):
        return type(error).__name__  # urllib3's, such as for a host name that is too long
    return one_line(error)


def discard_broken(path: Path) -> bool:
    """Whether a cached file exists and is complete; deletes it if its content is broken.

    Raises:
        StorageError: it exists, but cannot be read, which says nothing about its content.
    """
    if not path.exists():
        return False
    if files.is_complete(path):
        return True
    path.unlink(missing_ok=True)  # left by a crash; downloaded again
    return False


# --- servers


def ask_size(source: str, name: str) -> int | None:
    """Ask a server for the size of a file, bytes; None if it does not say.

    Raises:
        RefusedError: the file is not there.
        requests.RequestException: the server does not answer.
    """
    url = _address(source, name)
    headers = {"Accept-Encoding": "identity"}
    answer = requests.head(url, timeout=SIZE_TIMEOUT_S, headers=headers, allow_redirects=True)
    if answer.status_code in (403, 404, 410):  # 403: a missing file, if listing is forbidden
        raise RefusedError(answer.status_code)
    length = answer.headers.get("Content-Length", "")
    return int(length) if answer.ok and length.isdecimal() else None


def ask_again_if_refused(source: str, name: str) -> int | None:
    """Ask for a file that certainly exists, up to three times with pauses.

    Returns:
        The last HTTP status if it was refused each time; None if it was not, or nothing answered.
    """
    status = None
    for wait in BACK_OFF_S:
        try:
            ask_size(source, name)
            return None
        except RefusedError as refused:
            status = int(str(refused))
        except requests.RequestException:
            return None  # not a refusal; reported by the download
        time.sleep(wait)
    return status


def download(source: str, name: str) -> Path:
    """Download a file from a server into the cache; return its path there.

    Raises:
        RefusedError: the file is not there.
        StorageError: no attempt succeeded, or this machine is offline.
    """
    import pooch

    base = without_credentials(source).rstrip("/")  # pooch prints it
    get = partial(_get, _address(source, name), name)
    cache = pooch.create(
        cache_folder(source), f"{base}/", registry={name: None}, retry_if_failed=RETRIES
    )
    try:
        return Path(cache.fetch(name, downloader=get))
    except OfflineError:
        raise StorageError(
            f"No connection to {base}. Connect this machine, pass -P source=<folder>, or "
            f"-P source=simulated for trips that are made up here."
        ) from None
    except (requests.RequestException, ValueError) as error:
        # "from None": requests quotes the address, including a password
        raise StorageError(
            f"Cannot download {base}/{name} in {1 + RETRIES} attempts: {reason(error)}. "
            "Try again later, or pass -P source=<folder>."
        ) from None


def _address(source: str, name: str) -> str:
    head, mark, query = source.partition("?")
    return f"{head.rstrip('/')}/{name}{mark}{query}"


def _get(url: str, name: str, _public_url: str, target: str, cache: object) -> None:
    """Download one file for pooch, which retries after a RequestException or a ValueError."""
    import pooch

    with Progress(name, 0, "B") as bar:
        http = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=CHUNK_BYTES,
            timeout=TIMEOUT_S,
            headers={"Accept-Encoding": "identity"},  # keep a .gz as it is
        )
        try:
            http(url, target, cache)
        except requests.HTTPError as error:
            status = error.response.status_code
            if 400 <= status < 500 and status not in (408, 429):
                raise RefusedError(status) from None
            raise
        except requests.ConnectionError as error:
            if is_offline(error):
                raise OfflineError from None
            raise
    try:
        files.check_complete(Path(target), name)
    except BrokenFileError as error:
        raise IncompleteError(one_line(error)) from error


# --- object stores


def open_object_store(source: str) -> tuple["AbstractFileSystem", str]:
    """Open the object store of a URI; return it and the path in it.

    Raises:
        StorageError: the store's package is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        return cast(tuple["AbstractFileSystem", str], url_to_fs(source))
    except ImportError as error:
        scheme = source.partition("://")[0].lower()
        package = STORE_PACKAGES.get(scheme, scheme)
        raise StorageError(
            f"Source {without_credentials(source)} needs the package {package}, "
            f"which is not installed. Add it to the lock with: make lock EXTRAS={scheme}"
        ) from error


def fetch_object(fs: "AbstractFileSystem", remote: str, target: Path) -> Path:
    """Fetch a file from an object store, unless the cache has it; return its path there.

    Raises:
        StorageError: it is incomplete, or the cached file cannot be read.
        OSError: it cannot be read or stored.
    """
    if discard_broken(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unchecked = Path(folder) / target.name
        fs.get_file(remote, str(unchecked))
        try:
            files.check_complete(unchecked, target.name)
        except BrokenFileError as error:
            raise StorageError(f"Cannot use {remote}: {one_line(error)}.") from error
        unchecked.replace(target)
    return target
