"""Fit every baseline, one child run each.

python -m steps.baseline --source=simulated --models=mean,linear_regression
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import mlflow
import numpy as np

from steps.common import page
from steps.common.candidates import Lineage, log_candidate, read_profiles, report_candidate
from steps.common.inputs import open_learning
from steps.common.parameters import BaselineParameters
from steps.common.pipeline import Pipeline
from steps.common.results import Dataset, write_best
from steps.common.step import step_run
from storage.tracking import artifacts, runs, tags
from taxi import baselines, features
from taxi.baselines import Baseline
from taxi.city import City
from taxi.features import Encoder
from taxi.model import TripModel
from taxi.recipes import Recipe
from taxi.schema import Trips
from taxi.scores import score_predictions


def main(argv: Sequence[str] | None = None) -> None:
    """Read train and valid trips, fit and log each model, log the leaderboard."""
    with step_run(BaselineParameters, __doc__, argv) as params:
        chosen = baselines.select_baselines(params.models)
        pipeline = Pipeline(params)
        preprocess = pipeline.preprocess()
        pipeline.tag("baseline")
        train, valid, city, scored_on = open_learning(preprocess)
        profiles = read_profiles(preprocess.run_id)
        encode = cache(lambda name: encode_train(name, train, city))
        scores, bounds = {}, {}
        for name, baseline in chosen.items():
            encoder, matrix = encode(baseline.features)
            with runs.child_run(name, {tags.MODEL: name, tags.FEATURES: baseline.features}):
                estimator = baseline.fit(matrix, train.trip_minutes, seed=params.seed)
                log_fit(estimator, *baseline.sample(matrix, train.trip_minutes, seed=params.seed))
                model = TripModel(preprocess.dataset.taxi, encoder, [estimator])
                report = report_candidate(model, valid)
                lineage = Lineage(
                    "baseline", name, baseline.features, preprocess, estimator.get_params()
                )
                bounded = bounds[name] = log_bound(baseline, len(train))
                log_candidate(model, report, profiles, lineage, scored_on, bounded)
                recipe = Recipe(baseline.features, params.seed, baseline=name)
                mlflow.log_dict(recipe.state(), tags.RECIPE)
                scores[name] = report.scores
            more = "" if baselines.has_converged(estimator) else ", stopped before it had converged"
            fitted = f", {bounded}" if bounded else ""
            print(f"{name}: rmse {scores[name]['rmse']:.4f} min{fitted}{more}", flush=True)
        log_leaderboard(scores, preprocess.dataset, bounds)


def encode_train(name: str, train: Trips, city: City | None) -> tuple[Encoder, Any]:
    """Fit a feature set and encode the n train trips as [n, k], for all models that share it."""
    encoder = features.fit_encoder(name, train, city)
    matrix = encoder.transform_train(train)
    return encoder, matrix


def log_fit(estimator: Any, matrix: Any, minutes: np.ndarray) -> None:
    """Log a fit to n rows under the names that MLflow's autolog uses.

    Autolog itself would predict the rows twice, and make a sparse matrix dense to hash it.
    """
    found, kind = score_predictions(minutes, estimator.predict(matrix)), type(estimator)
    mlflow.log_params(estimator.get_params())
    mlflow.set_tags(
        {
            tags.ESTIMATOR_NAME: kind.__name__,
            tags.ESTIMATOR_CLASS: f"{kind.__module__}.{kind.__name__}",
        }
    )
    mlflow.log_metrics(
        {
            "training_root_mean_squared_error": found["rmse"],
            "training_mean_squared_error": found["rmse"] ** 2,
            "training_mean_absolute_error": found["mae"],
            "training_r2_score": found["r2"],
            "training_score": found["r2"],
        }
    )


def log_bound(baseline: Baseline, n_trips: int) -> str:
    """Tag a fit that left train trips out; return a note on it, empty if it used them all."""
    if not baseline.is_bounded(n_trips):
        return ""
    bounded = f"fitted on {baseline.format_n_fitted(n_trips)} train trips"
    mlflow.set_tag(tags.BOUNDED, bounded)
    return bounded


def log_leaderboard(
    scores: Mapping[str, Mapping[str, float]], dataset: Dataset, bounds: Mapping[str, str]
) -> None:
    """Log the leaderboard, best model first, the best model's scores, and the run's page.

    Args:
        scores: model -> its scores.
        dataset: the trips that the models were fitted and scored on.
        bounds: model -> note on how many trips it was fitted on; empty if on all of them.
    """
    ranked = sorted(scores.items(), key=lambda item: item[1]["rmse"])
    artifacts.log_table([{"model": name, **values} for name, values in ranked], tags.LEADERBOARD)
    best, found = ranked[0]
    write_best(best, found)
    rows = [(name, f"{s['rmse']:.3f}", f"{s['mae']:.3f}") for name, s in ranked]
    verdict = f"{page.scores_line(best, found, dataset)}; best of {len(ranked)}"
    table = page.to_table(["model", "RMSE, min", "MAE, min"], rows)
    left_out = "  \n".join(f"{name}: {bounded}" for name, bounded in bounds.items() if bounded)
    page.write_verdict(verdict, table, left_out, dataset=dataset, rmse=found["rmse"])


if __name__ == "__main__":
    main()
