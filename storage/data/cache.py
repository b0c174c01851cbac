"""The cache of downloads on this machine."""

import hashlib
import os
from pathlib import Path

from storage.uris import expand_home, without_user


def cache_dir() -> Path:
    """Return the folder of the cache: TAXI_CACHE, or one in the user's own cache.

    Raises:
        ModuleNotFoundError: TAXI_CACHE is not set, and platformdirs is not installed.
    """
    given = os.environ.get("TAXI_CACHE")
    if not given:
        import platformdirs  # tools.doctor calls this before there is an environment

        given = platformdirs.user_cache_dir("nyc-taxi")
    return expand_home(given)


def cache_folder(source: str) -> Path:
    """Return the cache folder for downloads from a source."""
    # one folder per address: two servers may hold different files of one name
    address = without_user(source).rstrip("/")
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache_dir() / f"{address.partition(':')[0].lower()}-{key}"
