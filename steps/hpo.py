"""Search xgboost's parameters with TPE, one child run per trial, and refit the winner.

python -m steps.hpo --source=simulated --max_evals=10
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import xgboost as xgb
from mlflow.models import infer_signature
from tqdm import tqdm

from steps import entry_parser, step_run
from steps._candidates import N_EXAMPLE_ROWS, load_trips, log_candidate, log_inputs
from steps._chain import Chain
from steps._device import check_device
from storage import models, runs
from storage.trials import TrialRuns
from taxi import evaluation, features, search
from taxi.features import Encoder
from taxi.model import TripModel
from taxi.search import Matrices, Outcome, SearchSpace, Trial


class Best(NamedTuple):
    """The best trial so far; of equal scores the earlier trial, whichever finished first."""

    rmse: float
    number: int
    point: dict[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """Names and help; the defaults are MLproject's."""
    return entry_parser("hpo", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Read train and valid trips, search, refit the best point, log it as a model."""
    with step_run(build_parser(), argv) as args:
        space = search.select(args.search_space)
        features.check_name(args.features)
        check_device(args.device)
        chain = Chain(args)
        preprocess = chain.take("preprocess")
        chain.tag("hpo")
        train, valid = (load_trips(preprocess, split) for split in ("train", "valid"))
        log_inputs(preprocess, {"train": "training", "valid": "validation"})

        encoder = features.fit(args.features, train)
        matrix = encoder.transform_train(train)
        matrices = search.build_matrices(
            matrix, train.trip_minutes, encoder.transform(valid), valid.trip_minutes
        )
        common = dict(space.fixed) | {"seed": args.seed, "device": args.device}
        best = run_search(space, matrices, common, args)
        with runs.child_run("refit", model="xgboost", features=args.features):
            parameters = common | best.point | dict(space.refit)
            boosters = refit(space, matrices, parameters)
            taxi = preprocess.data.tags["taxi"]
            scores = log_candidate(TripModel(taxi, encoder, boosters), valid)
            log_native(boosters[0], encoder, matrix[:N_EXAMPLE_ROWS])
            if isinstance(matrix, np.ndarray):
                log_importance(boosters[0], encoder.transform(valid), encoder.names)
        mlflow.log_metrics(scores)
        mlflow.set_tag("model", "xgboost")
        n_trees = sum(booster.num_boosted_rounds() for booster in boosters)
        print(f"refit: rmse {scores['rmse']:.4f} min, {n_trees} trees in {len(boosters)} boosters")


def run_search(
    space: SearchSpace, matrices: Matrices, common: dict[str, Any], args: argparse.Namespace
) -> Best:
    """Try the points of the search, one child run each; gives the best trial."""
    objective = partial(try_point, space, matrices, common)
    n_parallel = min(args.parallelism or n_cores(), search.LAG)
    log = TrialRuns(mlflow.active_run().info.run_id, tags={"model": "xgboost"})
    best = Best(np.inf, -1, {})
    with ThreadPoolExecutor(n_parallel) as executor:
        trials = search.search(
            space,
            objective,
            max_evals=args.max_evals,
            seed=args.seed,
            executor=executor,
            n_parallel=n_parallel,
        )
        bar = tqdm(total=args.max_evals if space.space else 1, unit="trial", disable=None)
        for trial in trials:
            if trial.outcome is None:
                log.start(trial.number)
                continue
            log_trial(log, common, trial, trial.outcome)
            best = min(best, Best(trial.outcome.rmse, trial.number, trial.point))
            mlflow.log_metric("best_rmse", best.rmse, step=trial.number)
            bar.set_postfix(best=f"{best.rmse:.4f}")
            bar.update()
        bar.close()
    mlflow.set_tag("best_trial", best.number)
    print(f"search: {bar.total} trials, best rmse {best.rmse:.4f} min, trial {best.number}")
    return best


def try_point(
    space: SearchSpace, matrices: Matrices, common: dict[str, Any], point: dict[str, Any]
) -> Outcome:
    """Train one trial; on one thread, for several trials at once scale better than threads."""
    parameters = common | point | {"nthread": 1}
    return search.fit(
        matrices, parameters, rounds=space.rounds, patience=space.patience, keep=False
    )


def log_trial(log: TrialRuns, common: dict[str, Any], trial: Trial, outcome: Outcome) -> None:
    """Write a finished trial to its run: parameters, learning curve, score, duration."""
    log.finish(
        trial.number,
        params=common | trial.point,
        metrics={
            "rmse": outcome.rmse,
            "best_round": outcome.best_round,
            "train_seconds": outcome.seconds,
        },
        curves={"rmse_by_round": outcome.curve},
    )


def refit(space: SearchSpace, matrices: Matrices, parameters: dict[str, Any]) -> list[xgb.Booster]:
    """Train the winner once more, as slowly and as many times as the space says."""
    mlflow.log_params(parameters)

    def fit(place: int) -> Outcome:
        return search.fit(
            matrices,
            parameters | {"nthread": 1, "seed": parameters["seed"] + place},
            rounds=space.refit_rounds,
            patience=space.patience,
            keep=True,
        )

    with ThreadPoolExecutor(n_cores()) as executor:
        outcomes = list(executor.map(fit, range(space.n_boosters)))
    for place, outcome in enumerate(outcomes):
        mlflow.log_metric("booster_rmse", outcome.rmse, step=place)
        mlflow.log_metric("best_round", outcome.best_round, step=place)
    return [outcome.booster for outcome in outcomes if outcome.booster is not None]


def n_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0))


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
