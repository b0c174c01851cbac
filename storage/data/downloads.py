"""Brings files from servers and stores into a cache on this machine, whole or not at all."""

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

# pooch and fsspec are imported where they are used: a local folder needs none of them

TIMEOUT_S = 30.0  # a server silent for longer has failed
LOOK_TIMEOUT_S = 5.0  # a plan would rather not know a size than wait
BACK_OFF_S = (2.0, 8.0, 0.0)  # between questions to a server that may want to be left alone
RETRIES = 3  # after the first attempt; pooch waits 1, 2, 3 s between them
STORE_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}


class IncompleteError(ValueError):
    """A download that is not whole: pooch throws it away, and asks again after a ValueError."""


class RefusedError(Exception):
    """The server will not give this file, however often it is asked; holds the HTTP status."""


class OfflineError(Exception):
    """This machine reaches no network, which asking again does not change."""


def is_offline(error: requests.RequestException) -> bool:
    """Whether it was this machine that knew no way to a server."""
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(cause, NameResolutionError):
        return True
    failed = cause.__cause__ if isinstance(cause, NewConnectionError) else None
    number = failed.errno if isinstance(failed, OSError) else None
    return number in (errno.ENETUNREACH, errno.ENETDOWN)


def reason(error: Exception) -> str:
    """Write in one line, and without any address, why a file could not be read."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return type(error).__name__  # its text quotes the address
    if isinstance(error, ValueError) and not isinstance(error, IncompleteError):
        return type(error).__name__  # of urllib3, as of a name too long for a host
    return one_line(error)


def discard_broken(path: Path) -> bool:
    """Whether a file is here and can be used as it is; throws it away if its content is broken.

    Raises:
        StorageError: it is here and cannot be read, which says nothing about its content.
    """
    if not path.exists():
        return False
    if files.is_whole(path):
        return True
    path.unlink(missing_ok=True)  # left by a dying machine; fetched again
    return False


# --- servers


def ask_size(source: str, name: str) -> int | None:
    """Ask how big a file of a server is, None where it does not say.

    Raises:
        RefusedError: it is not there.
        requests.RequestException: nobody answers.
    """
    url = _address(source, name)
    headers = {"Accept-Encoding": "identity"}
    answer = requests.head(url, timeout=LOOK_TIMEOUT_S, headers=headers, allow_redirects=True)
    if answer.status_code in (403, 404, 410):  # where nobody may list, what is not there is 403
        raise RefusedError(answer.status_code)
    length = answer.headers.get("Content-Length", "")
    return int(length) if answer.ok and length.isdecimal() else None


def still_refused(source: str, name: str) -> int | None:
    """Ask for a file that is there for sure, waiting longer each time.

    Returns:
        The HTTP status where it is refused to the last, None where it is answered or nobody is.
    """
    status = None
    for wait in BACK_OFF_S:
        try:
            ask_size(source, name)
            return None
        except RefusedError as refused:
            status = int(str(refused))
        except requests.RequestException:
            return None  # another thing than a refusal, and said where it is met
        time.sleep(wait)
    return status


def download(source: str, name: str) -> Path:
    """Fetch a file from a server; returns where it is now.

    Raises:
        RefusedError: it is not there.
        StorageError: it did not come whole, however often it was asked for.
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
        # "from None": requests quotes the address, password and all
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
        files.check_whole(Path(target), name)
    except BrokenFileError as error:
        raise IncompleteError(one_line(error)) from error


# --- object stores


def open_object_store(source: str) -> tuple["AbstractFileSystem", str]:
    """Open the store that a URI begins with; returns it and the path in it.

    Raises:
        StorageError: its package is not installed.
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
    """Fetch a file from a store unless it is whole in the cache; returns where it is now.

    Raises:
        StorageError: it is not whole.
        OSError: it cannot be read or kept.
    """
    if discard_broken(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unchecked = Path(folder) / target.name
        fs.get_file(remote, str(unchecked))
        try:
            files.check_whole(unchecked, target.name)
        except BrokenFileError as error:
            raise StorageError(f"Cannot use {remote}: {one_line(error)}.") from error
        unchecked.replace(target)
    return target
