"""The fixtures of this folder."""

from tests.stores import initialised_store, store
from tests.tracking_server import mlflow_server

__all__ = ["initialised_store", "mlflow_server", "store"]
