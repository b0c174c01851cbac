"""The fixtures of this folder."""

from tests.storage.sources import cache, memory, naps, server
from tests.stores import initialised_store, store

__all__ = ["cache", "initialised_store", "memory", "naps", "server", "store"]
