"""The fixtures of this folder."""

from tests.pictures import blank_pictures
from tests.steps.lab import lab, pipelines
from tests.stores import initialised_store, store

__all__ = ["blank_pictures", "initialised_store", "lab", "pipelines", "store"]
