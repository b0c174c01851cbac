import re
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from steps import baseline
from steps.common.results import read_training
from steps.register import refit
from storage import UserError
from storage.tracking import runs
from taxi import baselines, features
from taxi.baselines import BASELINES
from taxi.recipes import Recipe
from tests.conftest import simulated_trips
from tests.stores import Store


def test_a_fit_is_logged_by_the_names_of_autolog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: dict[str, Any] = {}
    monkeypatch.setattr(mlflow, "log_params", logged.update)
    monkeypatch.setattr(mlflow, "set_tags", logged.update)
    monkeypatch.setattr(mlflow, "log_metrics", logged.update)
    train = simulated_trips("2021-01")
    matrix = features.fit_encoder("course", train).transform_train(train)
    model = BASELINES["linear_regression"].fit(matrix, train.trip_minutes, seed=42)
    baseline.log_fit(model, matrix, train.trip_minutes)
    error = model.predict(matrix) - train.trip_minutes
    assert logged["fit_intercept"] is True
    assert logged["estimator_name"] == "LinearRegression"
    assert logged["estimator_class"] == "sklearn.linear_model._base.LinearRegression"
    assert logged["training_mean_squared_error"] == pytest.approx(np.mean(error**2))
    assert logged["training_score"] == pytest.approx(model.score(matrix, train.trip_minutes))


def test_a_run_says_what_its_fit_left_out(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    bounded = {"mean": BASELINES["mean"], "lasso_0.1": BASELINES["lasso_0.1"]._replace(max_rows=99)}
    monkeypatch.setattr(baselines, "BASELINES", bounded)
    baseline.main(["--source=simulated:300", "--models=all"])
    found = mlflow.search_runs(filter_string="tags.step = 'baseline'", output_format="list")
    whole = found[0]  # the newest
    below = {run.info.run_name: run.data.tags for run in runs.children(whole.info.run_id)}
    mean, lasso = (below[name] for name in bounded)
    said = lasso["bounded"]
    assert re.fullmatch(r"fitted on 99 of 2\d\d train trips", said)
    assert lasso["mlflow.note.content"].splitlines()[0].endswith(said)
    assert f" min, {said}" in capsys.readouterr().out
    assert f"\nlasso_0.1: {said}" in whole.data.tags["mlflow.note.content"]
    assert "bounded" not in mean
    assert "fitted on" not in mean["mlflow.note.content"]
    # so does the refit to train and valid
    n_trips = refit.count_fitted(Recipe("course", 1, baseline="lasso_0.1"), 12_345)
    assert (n_trips, refit.count_fitted(Recipe("full", 1), 12_345)) == ("99 of 12,345", "12,345")


@pytest.mark.parametrize("models", ["mean", "mean,linear_regression"])
def test_a_run_whose_best_model_is_gone_hands_nothing_over(store: Store, models: str) -> None:
    """Even if others are left: the second best is not the run's result."""
    baseline.main(["--source=simulated:310", f"--models={models}"])
    (run, *_) = mlflow.search_runs(filter_string="tags.step = 'baseline'", output_format="list")
    best = run.data.tags["model"]
    (child,) = [one for one in runs.children(run.info.run_id) if one.info.run_name == best]
    MlflowClient().delete_run(child.info.run_id)
    with pytest.raises(
        UserError, match=rf"^No run of {best}, .* deleted it.*\. Run baseline again"
    ):
        read_training(run)
