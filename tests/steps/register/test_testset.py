"""How a served model is asked about the test trips."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from steps.register import testset
from storage.tracking import models
from tests.conftest import random_trips


def test_a_model_is_asked_about_so_many_trips_at_a_time_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trips, asked = random_trips(250, seed=1), []

    def predict(model: Any, frame: pd.DataFrame, uri: str) -> np.ndarray:
        asked.append(len(frame))
        return frame["trip_distance"].to_numpy()

    monkeypatch.setattr(models, "predict_typed", predict)
    monkeypatch.setattr(testset, "REQUEST_ROWS", 100)
    said = testset.predict_minutes(None, "models:/m-1", trips, "green")
    assert asked == [100, 100, 50]
    assert np.array_equal(said, trips.distance_miles, equal_nan=True)
