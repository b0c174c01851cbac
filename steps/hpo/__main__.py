"""Search xgboost's parameters with TPE, one child run per trial, and refit the winner.

python -m steps.hpo --source=simulated --max_evals=10
"""

import argparse
from collections.abc import Sequence
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import xgboost as xgb
from mlflow.models import infer_signature

from steps.common.candidates import N_EXAMPLE_ROWS, load_trips, log_candidate, log_inputs
from steps.common.device import check_device
from steps.common.pipeline import Pipeline
from steps.common.step import entry_parser, step_run
from steps.hpo.executor import TrialExecutor, open_executor
from steps.hpo.search import in_common, run_search
from storage.tracking import models, runs
from taxi import evaluation, features, search, spaces
from taxi.boosting import Rows, TrainingJob, make_rows
from taxi.features import Encoder
from taxi.model import TripModel
from taxi.schema import Trips
from taxi.search import Trial
from taxi.spaces import SearchSpace

N_SEEDS = 3  # of the search's first point, to tell what a seed makes


def build_parser() -> argparse.ArgumentParser:
    """Names and help; the defaults are MLproject's."""
    return entry_parser("hpo", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Read train and valid trips, search, refit the best point, log it as a model."""
    with step_run(build_parser(), argv) as args:
        space = spaces.select(args.search_space)
        features.check_name(args.features)
        check_device(args.device, args.scheduler)
        chain = Pipeline(args)
        preprocess = chain.get_or_run("preprocess")
        chain.tag("hpo")
        train, valid = (load_trips(preprocess, split) for split in ("train", "valid"))
        log_inputs(preprocess, {"train": "training", "valid": "validation"})

        encoder = features.fit_encoder(args.features, train)
        rows = make_rows(encoder, train, valid)
        common = in_common(space, args)
        with open_executor(rows, args) as place:
            trials = run_search(space, place, rows, args)
            log_noise(space, place, common, trials)
            with runs.child_run("refit", model="xgboost", features=args.features):
                boosters = refit(space, place, common, trials)
                scores = log_model(boosters, encoder, rows, valid, preprocess.data.tags["taxi"])
        mlflow.log_metrics(scores)
        mlflow.set_tag("model", "xgboost")
        n_trees = sum(booster.num_boosted_rounds() for booster in boosters)
        print(f"refit: rmse {scores['rmse']:.4f} min, {n_trees} trees in {len(boosters)} boosters")


def log_noise(
    space: SearchSpace, place: TrialExecutor, common: dict[str, Any], trials: list[Trial]
) -> None:
    """Show what the search gained over its first point, and what the luck of a seed makes there."""
    first = trials[0]
    if len(trials) == 1 or first.outcome is None:
        return
    seeds = [common["seed"] + number for number in range(1, N_SEEDS)]
    jobs = [job_of(space, common | first.point | {"seed": seed}) for seed in seeds]
    others = [future.result() for future in [place.submit(job) for job in jobs]]
    noise = float(np.std([first.outcome.rmse, *(other.rmse for other in others)], ddof=1))
    gain = first.outcome.rmse - min(trial.outcome.rmse for trial in trials if trial.outcome)
    mlflow.log_metrics({"search_gain": gain, "seed_noise": noise})
    print(f"search: {gain:.4f} min better than its first point, where a seed makes {noise:.4f} min")


def refit(
    space: SearchSpace, place: TrialExecutor, common: dict[str, Any], trials: list[Trial]
) -> list[xgb.Booster]:
    """Train the best points once more, more slowly, each with a seed of its own.

    Points that differ make boosters that differ, whose average is worth more than that of one point
    with as many seeds.
    """
    best = search.top(trials, space.n_boosters)
    chosen = [best[number % len(best)] for number in range(space.n_boosters)]
    asked = [
        common | trial.point | dict(space.refit) | {"seed": common["seed"] + number}
        for number, trial in enumerate(chosen)
    ]
    mlflow.log_params(asked[0])
    jobs = [
        job_of(space, parameters)._replace(rounds=space.refit_rounds, keep=True)
        for parameters in asked
    ]
    outcomes = [future.result() for future in [place.submit(job) for job in jobs]]
    rows = [
        {
            "trial": trial.number,
            "rmse": outcome.rmse,
            "best_round": outcome.best_round,
            **parameters,
        }
        for trial, outcome, parameters in zip(chosen, outcomes, asked, strict=True)
    ]
    runs.log_table(rows, "boosters.csv")
    return [outcome.booster for outcome in outcomes if outcome.booster]


def job_of(space: SearchSpace, parameters: dict[str, Any]) -> TrainingJob:
    """Make the job of training a point once, on one thread and to its end."""
    return TrainingJob(parameters | {"nthread": 1}, space.rounds, space.patience)


def log_model(
    boosters: list[xgb.Booster], encoder: Encoder, rows: Rows, valid: Trips, taxi: str
) -> dict[str, float]:
    """Log the winner as a candidate, part by part too, and what it looks at; gives its scores."""
    scores = log_candidate(TripModel(taxi, encoder, boosters), valid)
    log_native(boosters[0], encoder, rows.train[:N_EXAMPLE_ROWS])
    if isinstance(rows.train, np.ndarray):
        log_importance(boosters[0], rows.valid, encoder.names)
    return scores


def log_native(booster: xgb.Booster, encoder: Encoder, rows: Any) -> None:
    """Log a booster and the preprocessor one by one too, as the course has them."""
    if isinstance(rows, np.ndarray):
        rows = pd.DataFrame(rows, columns=encoder.names)
    mlflow.log_dict(encoder.state(), "preprocessor/preprocessor.json")
    mlflow.xgboost.log_model(
        booster,
        name="models_mlflow",
        model_format="ubj",
        signature=infer_signature(rows, booster.inplace_predict(rows)),
        input_example=rows,
        pip_requirements=models.pins(),
    )


def log_importance(booster: xgb.Booster, matrix: np.ndarray, names: list[str]) -> None:
    """Log what the model looks at, as a table and a picture."""
    found = evaluation.importance(booster, matrix, names)
    runs.log_table(
        [{"feature": name, **values} for name, values in found.items()], "importance.csv"
    )
    mlflow.log_figure(evaluation.draw_importance(found), "importance.png")


if __name__ == "__main__":
    main()
