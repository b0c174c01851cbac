"""The fixtures of this folder."""

from tests.pictures import blank_pictures
from tests.steps.lab import lab, pipelines
from tests.stores import initialised_store, store
from tests.tracking_server import mlflow_server

__all__ = ["blank_pictures", "initialised_store", "lab", "mlflow_server", "pipelines", "store"]
