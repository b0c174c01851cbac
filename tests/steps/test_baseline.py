from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from steps import baseline
from storage.tracking import runs
from taxi import features
from taxi.baselines import BASELINES
from tests.conftest import simulated_trips
from tests.stores import Store


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


@pytest.mark.parametrize("refuses", [False, True])
def test_a_fit_whose_scores_the_store_has_refused_to_autolog_is_told_from_one_that_is_logged(
    store: Store, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    take, refused = MlflowClient.log_batch, []

    def log_batch(self: MlflowClient, run_id: str, metrics: Any = (), **rest: Any) -> None:
        if refuses and metrics:
            refused.extend(metrics)
            raise MlflowException("no")
        take(self, run_id, metrics, **rest)

    model = BASELINES["lasso_0.1"]
    with runs.StepRun("baseline", ""):
        assert not baseline.is_logged(model)
        mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, "log_batch", log_batch)
            model.fit(np.eye(4, dtype=np.float32), np.arange(4.0), seed=42)
        mlflow.sklearn.autolog(disable=True)
        assert baseline.is_logged(model) != refuses
        assert bool(refused) == refuses
