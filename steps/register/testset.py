"""The test trips, opened once, by register alone."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from steps.common.inputs import load_city, load_trips, log_inputs
from steps.common.results import PreprocessResult
from storage import UserError
from storage.tracking import models
from storage.tracking.datasets import HashedDataset
from taxi import distances
from taxi.city import City
from taxi.distances import METERED
from taxi.model import trips_to_frame
from taxi.schema import Trips

# most trips for kinds of distance that models are not judged by: more would not be more precise
MAX_TEST_ROWS = 100_000
# most trips in one request: as a frame, and inside the model, they take several times their memory
REQUEST_ROWS = 100_000


class TestSet(NamedTuple):
    """The test trips, opened once."""

    taxi: str
    months: frozenset[str]
    trips: Trips  # n trips with metered distances
    distance: str  # kind of distance that models are judged by
    dataset: HashedDataset  # the trips as a data set, to which scores belong
    sha256: str  # of the trips
    is_simulated: bool
    city: City | None  # None if its map is learned from the trips alone

    def trips_for(self, kind: str) -> Trips:
        """Return the m <= n trips, with metered distances, used for a kind of distance.

        All n for metered distance and the kind that models are judged by, else a sample.
        """
        decides = kind in (METERED, self.distance)
        return self.trips if decides else distances.sample_trips(self.trips, MAX_TEST_ROWS)


def open_test_set(preprocess: PreprocessResult, distance: str) -> TestSet:
    """Read the test trips, and log them as an input of the active run.

    Args:
        preprocess: the run that made them.
        distance: kind of distance that models are judged by.
    Raises:
        UserError: a test month is a train or validation month too.
    """
    dataset = preprocess.dataset
    months = frozenset(dataset.months["test"])
    for split in ("train", "valid"):
        if both := months & set(dataset.months[split]):
            raise UserError(
                f"Month {min(both)} is among the {split} and the test months of run "
                f"{preprocess.run_id}. Run preprocess again with other test_months."
            )
    trips = load_trips(preprocess, "test")
    described = log_inputs(preprocess, {"test": "test"})["test"]
    return TestSet(
        dataset.taxi,
        months,
        trips,
        distance,
        described,
        dataset.sha256["test"],
        dataset.is_simulated,
        load_city(preprocess),
    )


def predict_minutes(model: Any, uri: str, trips: Trips, taxi: str) -> np.ndarray:
    """Predict n trips with a served model, minutes [n].

    Raises:
        StorageError: the model does not take these trips.
    """
    frames = request_frames(trips, taxi)
    return np.concatenate([models.predict_typed(model, frame, uri) for frame in frames])


def request_frames(trips: Trips, taxi: str) -> Iterator[pd.DataFrame]:
    """Yield n trips as frames that a caller would send, at most REQUEST_ROWS rows each."""
    for start in range(0, len(trips), REQUEST_ROWS):
        yield trips_to_frame(trips.take(slice(start, start + REQUEST_ROWS)), taxi)
