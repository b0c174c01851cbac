"""The fixtures of this folder."""

from tests.storage.sources import cache, naps, server
from tests.stores import initialised_store, store
from tests.tracking_server import mlflow_server

__all__ = ["cache", "initialised_store", "mlflow_server", "naps", "server", "store"]
