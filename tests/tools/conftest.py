"""The fixtures of this folder."""

from tests.storage.sources import cache
from tests.stores import initialised_store, store
from tests.tools.checkout_root import root

__all__ = ["cache", "initialised_store", "root", "store"]
