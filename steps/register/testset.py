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
from taxi.model import write_frame
from taxi.schema import Trips

# test trips that a kind of distance is measured on which does not decide: more say it no better
MAX_TEST_ROWS = 100_000
# trips of a request: as a frame, and as a model reads it, they take several times their own memory
REQUEST_ROWS = 100_000


class TestSet(NamedTuple):
    """The test trips, opened once."""

    taxi: str
    months: frozenset[str]
    trips: Trips  # n, distances as metered
    distance: str  # kind of it that models are judged by
    dataset: HashedDataset  # the same, as scores name it
    sha256: str  # of the trips
    is_simulated: bool
    city: City | None  # None where its map is learned from trips

    def known_by(self, kind: str) -> Trips:
        """Return the trips that a kind of distance is measured on, m <= n, as metered."""
        decides = kind in (METERED, self.distance)
        return self.trips if decides else distances.sample(self.trips, MAX_TEST_ROWS)


def open_test_set(preprocess: PreprocessResult, distance: str) -> TestSet:
    """Read the test trips, and record that this run has.

    Args:
        preprocess: run that made them.
        distance: kind that models are judged by.
    Raises:
        UserError: a month is among the train or valid months too.
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


def ask_served(model: Any, uri: str, trips: Trips, taxi: str) -> np.ndarray:
    """Ask a served model about n trips, minutes [n].

    Raises:
        StorageError: it does not take these trips.
    """
    frames = request_frames(trips, taxi)
    return np.concatenate([models.predict_typed(model, frame, uri) for frame in frames])


def request_frames(trips: Trips, taxi: str) -> Iterator[pd.DataFrame]:
    """Lay n trips out as a caller sends them, so many at a time."""
    for start in range(0, len(trips), REQUEST_ROWS):
        yield write_frame(trips.take(slice(start, start + REQUEST_ROWS)), taxi)
