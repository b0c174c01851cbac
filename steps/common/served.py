"""Load a model as it is served, for register and score, and check that it suits the trips.

Nothing here imports the checkout's model code, because a saved model brings its own.
"""

from functools import lru_cache
from typing import Any

from storage import StorageError
from storage.tracking import models
from storage.uris import without_credentials
from taxi import schema


@lru_cache(maxsize=2)  # a candidate and a champion; each may hold hundreds of megabytes
def load_served(uri: str, taxi: str) -> Any:
    """Load a model and check that it takes trips of this taxi.

    Raises:
        StorageError: it cannot be loaded, was trained for another taxi, or needs columns that
            trips of this taxi do not have.
    """
    model = models.load(uri)
    known_columns = {column.name for column in schema.raw_columns(taxi)}
    if missing := sorted(models.required_columns(model) - known_columns):
        raise StorageError(
            f"Model {without_credentials(uri)} needs {missing}, which {taxi} trips do not have. "
            f"Pass the taxi that it was trained for, or another model."
        )
    # trips of two taxis may have the same columns
    trained_for = getattr(models.unwrapped(model), "taxi", taxi)
    if trained_for != taxi:
        raise StorageError(
            f"Model {without_credentials(uri)} is of {trained_for} trips, not of {taxi} ones. "
            f"Pass the taxi that it was trained for, or another model."
        )
    return model


def gives_intervals(model: Any) -> bool:
    """Whether a loaded model gives quantiles; one that had too few validation trips does not."""
    return getattr(models.unwrapped(model), "spread", None) is not None
