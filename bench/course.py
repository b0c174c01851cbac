"""The course's search as in its notebook: hyperopt's fmin, one MLflow run after the other.

python -m bench.course 6

Prints the seconds of each trial as JSON.
"""

import json
import sys
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import mlflow
import numpy as np
import xgboost as xgb
from hyperopt import STATUS_OK, Trials, fmin, hp, tpe
from hyperopt.pyll.base import scope

from bench.serving import load
from taxi import features

SEED = 42
SPACE = {
    "max_depth": scope.int(hp.quniform("max_depth", 4, 100, 1)),
    "learning_rate": hp.loguniform("learning_rate", -3, 0),
    "reg_alpha": hp.loguniform("reg_alpha", -5, -1),
    "reg_lambda": hp.loguniform("reg_lambda", -6, -1),
    "min_child_weight": hp.loguniform("min_child_weight", -1, 3),
    "objective": "reg:squarederror",
    "seed": SEED,
}


def main() -> None:
    """Run the trials and print the seconds that each took."""
    seconds: list[float] = []
    mlflow.set_experiment("course")
    fmin(
        objective(seconds),
        SPACE,
        algo=tpe.suggest,
        max_evals=int(sys.argv[1]),
        trials=Trials(),
        rstate=np.random.default_rng(SEED),
        show_progressbar=False,
    )
    print(json.dumps(seconds))


def objective(seconds: list[float]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Make the function that trains, scores and logs one trial, on all cores."""
    train, valid = load("2021-01"), load("2021-02")
    encoder = features.fit_encoder("course", train)
    on_train = xgb.DMatrix(encoder.transform_train(train), train.trip_minutes)
    on_valid = xgb.DMatrix(encoder.transform(valid), valid.trip_minutes)

    def tried(params: Mapping[str, Any]) -> dict[str, Any]:
        start = perf_counter()
        with mlflow.start_run():
            mlflow.set_tag("model", "xgboost")
            mlflow.log_params(dict(params))
            booster = xgb.train(
                dict(params),
                on_train,
                num_boost_round=1000,
                evals=[(on_valid, "validation")],
                early_stopping_rounds=50,
                verbose_eval=False,
            )
            errors = booster.predict(on_valid) - valid.trip_minutes
            rmse = float(np.sqrt(np.mean(errors**2)))
            mlflow.log_metric("rmse", rmse)
        seconds.append(perf_counter() - start)
        return {"loss": rmse, "status": STATUS_OK}

    return tried


if __name__ == "__main__":
    main()
