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

from steps import entry_parser, step_run
from steps._candidates import N_EXAMPLE_ROWS, load_trips, log_candidate, log_inputs
from steps._chain import Chain
from steps._device import check_device
from steps._search import in_common, run_search
from steps._workplace import Workplace, workplace
from storage import models, runs
from taxi import evaluation, features, spaces
from taxi.boosting import Job, Outcome, Rows, make_rows
from taxi.features import Encoder
from taxi.model import TripModel
from taxi.schema import Trips
from taxi.spaces import SearchSpace


def build_parser() -> argparse.ArgumentParser:
    """Names and help; the defaults are MLproject's."""
    return entry_parser("hpo", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Read train and valid trips, search, refit the best point, log it as a model."""
    with step_run(build_parser(), argv) as args:
        space = spaces.select(args.search_space)
        features.check_name(args.features)
        check_device(args.device, args.scheduler)
        chain = Chain(args)
        preprocess = chain.take("preprocess")
        chain.tag("hpo")
        train, valid = (load_trips(preprocess, split) for split in ("train", "valid"))
        log_inputs(preprocess, {"train": "training", "valid": "validation"})

        encoder = features.fit(args.features, train)
        rows = make_rows(encoder, train, valid)
        with workplace(rows, args) as place:
            best = run_search(space, place, rows, args)
            with runs.child_run("refit", model="xgboost", features=args.features):
                parameters = in_common(space, args) | best.point | dict(space.refit)
                outcomes = refit(space, place, parameters)
                boosters = [outcome.booster for outcome in outcomes if outcome.booster]
                scores = log_model(boosters, encoder, rows, valid, preprocess.data.tags["taxi"])
        mlflow.log_metrics(scores)
        mlflow.set_tag("model", "xgboost")
        log_worth([outcome.rmse for outcome in outcomes])
        n_trees = sum(booster.num_boosted_rounds() for booster in boosters)
        print(f"refit: rmse {scores['rmse']:.4f} min, {n_trees} trees in {len(boosters)} boosters")


def refit(space: SearchSpace, place: Workplace, parameters: dict[str, Any]) -> list[Outcome]:
    """Train the winner once more, as slowly and as many times as the space says."""
    mlflow.log_params(parameters)
    job = Job(parameters | {"nthread": 1}, space.refit_rounds, space.patience, keep=True)
    seeds = [parameters["seed"] + number for number in range(space.n_boosters)]
    jobs = [job._replace(parameters={**job.parameters, "seed": seed}) for seed in seeds]
    outcomes = [future.result() for future in [place.submit(job) for job in jobs]]
    for number, outcome in enumerate(outcomes):
        mlflow.log_metric("booster_rmse", outcome.rmse, step=number)
        mlflow.log_metric("best_round", outcome.best_round, step=number)
    return outcomes


def log_worth(rmse: list[float]) -> None:
    """Show what the search gained over its first point, and over the luck of a seed.

    Args:
        rmse: of boosters that differ in nothing but their seed, minutes.
    """
    gain = runs.active().data.metrics.get("search_gain")
    if gain is None or len(rmse) < 2:
        return
    noise = float(np.std(rmse, ddof=1))
    mlflow.log_metric("seed_noise", noise)
    print(f"search: {gain:.4f} min better than its first point; a seed makes {noise:.4f} min")


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
