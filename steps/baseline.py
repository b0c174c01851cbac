"""Fit every baseline, one child run each.

python -m steps.baseline --source=simulated --models=mean,linear_regression
"""

import argparse
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

import mlflow
from scipy.sparse import csr_matrix, issparse

from steps.common.candidates import load_trips, log_candidate, log_inputs
from steps.common.pipeline import Pipeline
from steps.common.step import entry_parser, step_run
from storage.tracking import runs
from taxi import baselines, features
from taxi.baselines import Baseline
from taxi.features import Encoder
from taxi.model import TripModel
from taxi.schema import Trips


def build_parser() -> argparse.ArgumentParser:
    """Names and help; the defaults are MLproject's."""
    return entry_parser("baseline", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Read train and valid trips, fit and log each model, log the leaderboard."""
    with step_run(build_parser(), argv) as args:
        chosen = baselines.select(args.models)
        chain = Pipeline(args)
        preprocess = chain.get_or_run("preprocess")
        chain.tag("baseline")
        train, valid = (load_trips(preprocess, split) for split in ("train", "valid"))
        log_inputs(preprocess, {"train": "training", "valid": "validation"})
        # autolog writes each estimator's own parameters; models and scores are logged here
        mlflow.sklearn.autolog(
            log_models=False, log_datasets=False, log_post_training_metrics=False, silent=True
        )
        encode = cache(lambda name: encoded(name, train))
        scores = {
            name: fit_one(name, baseline, encode(baseline.features), train, valid, args)
            for name, baseline in chosen.items()
        }
        log_leaderboard(scores)


class NeverDense(csr_matrix):  # type: ignore[misc]
    """A sparse matrix that refuses to be laid out densely.

    Autolog would do so to hash it as a data set, even with log_datasets=False, and 8 GB and most
    of a minute go into a month of one-hot pairs; it goes on without when this fails.
    """

    def toarray(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse."""
        raise MemoryError(f"not turning a {self.shape} one-hot matrix dense")


def encoded(name: str, train: Trips) -> tuple[Encoder, Any]:
    """Fit a feature set and encode the train trips, once for all models that share it."""
    encoder = features.fit_encoder(name, train)
    matrix = encoder.transform_train(train)
    return encoder, NeverDense(matrix) if issparse(matrix) else matrix


def fit_one(
    name: str,
    baseline: Baseline,
    inputs: tuple[Encoder, Any],
    train: Trips,
    valid: Trips,
    args: argparse.Namespace,
) -> dict[str, float]:
    """Fit one baseline in a child run of its own; its scores on valid."""
    encoder, matrix = inputs
    taxi = runs.active().data.tags["taxi"]
    with runs.child_run(name, model=name, features=baseline.features):
        estimator = baseline.make(args.seed).fit(matrix, train.trip_minutes)
        scores = log_candidate(TripModel(taxi, encoder, [estimator]), valid)
    print(f"{name}: rmse {scores['rmse']:.4f} min", flush=True)
    return scores


def log_leaderboard(scores: dict[str, dict[str, float]]) -> None:
    """Write the table of models, best first, and hoist the best one's scores."""
    ranked = sorted(scores.items(), key=lambda item: item[1]["rmse"])
    runs.log_table([{"model": name, **values} for name, values in ranked], "leaderboard.csv")
    best, values = ranked[0]
    mlflow.log_metrics(values)
    mlflow.set_tag("model", best)


if __name__ == "__main__":
    main()
