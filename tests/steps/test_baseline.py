import mlflow
import numpy as np
import pytest

from steps import baseline
from taxi import features
from taxi.baselines import BASELINES
from tests.conftest import simulated_trips


def test_a_fit_that_autolog_does_not_see_is_logged_by_its_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: dict[str, float] = {}
    monkeypatch.setattr(mlflow, "log_params", logged.update)
    monkeypatch.setattr(mlflow, "log_metrics", logged.update)
    train = simulated_trips("2021-01")
    matrix = features.fit_encoder("course", train).transform_train(train)
    model = BASELINES["linear_regression"].fit(matrix, train.trip_minutes, seed=42)
    baseline.log_fit(model, matrix, train.trip_minutes)
    error = model.predict(matrix) - train.trip_minutes
    assert logged["fit_intercept"] is True
    assert logged["training_mean_squared_error"] == pytest.approx(np.mean(error**2))
    assert logged["training_score"] == pytest.approx(model.score(matrix, train.trip_minutes))
