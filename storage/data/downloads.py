"""Brings files from servers and stores into a cache on this machine, whole or not at all."""

import hashlib
import os
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import platformdirs
import requests

from storage import StorageError
from storage.data import files
from storage.data.files import IncompleteError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# pooch, tqdm and fsspec are imported where they are used: a local folder needs none of them

TIMEOUT_S = 30.0  # a server silent for longer has failed
LOOK_TIMEOUT_S = 5.0  # a plan would rather not know a size than wait
RETRIES = 3  # after the first attempt; pooch waits 1, 2, 3 s between them
STORE_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}


class RefusedError(Exception):
    """The server will not give this file, however often it is asked; holds the HTTP status."""


def cache_dir() -> Path:
    """Name the folder that keeps downloads: TAXI_CACHE, or the user's own cache."""
    return Path(
        os.environ.get("TAXI_CACHE") or platformdirs.user_cache_dir("nyc-taxi")
    ).expanduser()


def public_uri(uri: str) -> str:
    """Drop what may be secret: user and password, query, fragment; and closing slashes."""
    return re.split("[?#]", _without_user(uri), maxsplit=1)[0].rstrip("/")


def _without_user(uri: str) -> str:
    return re.sub(r"(?<=://)[^/]*@", "", uri)


def reason(error: Exception) -> str:
    """Say in one line, and without any address, why a file could not be read."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return type(error).__name__  # its text quotes the address
    return files.one_line(error)


def cache_folder(source: str) -> Path:
    """Name the folder that keeps what comes from a source."""
    # one folder per address: two servers may hold different files of one name
    address = _without_user(source).rstrip("/")
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache_dir() / f"{address.partition(':')[0].lower()}-{key}"


def is_cached(path: Path) -> bool:
    """Tell whether a file is there and whole; removes it where it is not whole."""
    if not path.exists():
        return False
    try:
        files.read_schema(path)
    except StorageError:
        path.unlink(missing_ok=True)  # left by a dying machine; fetched again
        return False
    return True


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


def download(source: str, name: str) -> Path:
    """Fetch a file from a server; gives where it is now.

    Raises:
        RefusedError: it is not there.
        StorageError: it did not come whole, however often it was asked for.
    """
    import pooch

    base = public_uri(source)  # pooch prints it
    get = partial(_get, _address(source, name), name)
    cache = pooch.create(
        cache_folder(source), f"{base}/", registry={name: None}, retry_if_failed=RETRIES
    )
    try:
        return Path(cache.fetch(name, downloader=get))
    except (requests.RequestException, IncompleteError) as error:
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
    from tqdm.auto import tqdm

    # disable=None: no bar unless stderr is a terminal; pooch ignores a bar without a total
    with tqdm(total=1, disable=None, unit="B", unit_scale=True, desc=name, leave=False) as bar:
        http = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=files.CHUNK_BYTES,
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
    files.check_whole(Path(target), name)


# --- object stores


def open_store(source: str) -> tuple["AbstractFileSystem", str]:
    """Open the store that a URI begins with; gives it, and the path in it.

    Raises:
        StorageError: its package is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        return cast(tuple["AbstractFileSystem", str], url_to_fs(source))
    except ImportError as error:
        scheme = source.partition("://")[0].lower()
        raise StorageError(
            f"Source {public_uri(source)} needs the package {STORE_PACKAGES.get(scheme, scheme)}, "
            f"which is not installed. Add it to the lock with: make lock EXTRAS={scheme}"
        ) from error


def copy(fs: "AbstractFileSystem", remote: str, target: Path) -> Path:
    """Fetch a file from a store unless it is there already; gives where it is now.

    Raises:
        StorageError: it is not whole.
        OSError: it cannot be read or kept.
    """
    if is_cached(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unchecked = Path(folder) / target.name
        fs.get_file(remote, str(unchecked))
        try:
            files.check_whole(unchecked, target.name)
        except IncompleteError as error:
            raise StorageError(f"Cannot use {remote}: {error}.") from error
        unchecked.replace(target)
    return target
