"""With which kinds of distance a candidate is scored on valid."""

import numpy as np
import pytest

from steps.common import candidates
from steps.common.results import RMSES
from taxi.distances import apply_distance_kind
from taxi.features import fit_encoder
from taxi.model import TripModel
from taxi.schema import Trips, clean_miles
from tests.conftest import random_trips


def answers_to(trips: Trips) -> dict[str, np.ndarray]:
    """Predict the miles as minutes, 0 if missing: kind of distance -> minutes."""
    return {kind: np.nan_to_num(clean_miles(apply_distance_kind(trips, kind))) for kind in RMSES}


def test_each_kind_of_distance_has_its_rmse() -> None:
    valid = random_trips(400, seed=1)
    scores = candidates.rmse_by_distance(answers_to(valid), valid)
    assert list(scores) == list(RMSES.values())
    without = np.sqrt(np.mean(valid.trip_minutes**2))
    assert scores["rmse_missing"] == pytest.approx(without)
    assert len({*scores.values()}) == 4


class Honest:
    """An estimator that predicts the first column."""

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the first column, 0 where it is missing."""
        return np.nan_to_num(matrix[:, 0])


def test_of_very_many_trips_the_same_sample_is_measured_for_every_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    valid = random_trips(400, seed=1)
    model = TripModel("green", fit_encoder("compact", valid), [Honest()])
    whole = candidates.report_candidate(model, valid)
    monkeypatch.setattr(candidates, "MAX_VALID_ROWS", 100)
    first, second = (candidates.report_candidate(model, valid) for _ in range(2))
    assert first.scores == second.scores
    # with the metered distance all trips count
    assert len(first.predicted) == 400
    assert first.scores["rmse"] == whole.scores["rmse"]
    others = [name for name in RMSES.values() if name != "rmse"]
    assert [name for name in others if first.scores[name] == whole.scores[name]] == []
