"""The fixtures of this folder."""

from tests.storage.sources import cache, naps, server
from tests.stores import initialised_store, store

__all__ = ["cache", "initialised_store", "naps", "server", "store"]
