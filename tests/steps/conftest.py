"""The fixtures of this folder."""

from tests.stores import initialised_store, store

__all__ = ["initialised_store", "store"]
