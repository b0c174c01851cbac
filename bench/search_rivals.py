"""Compare with FLAML, and Optuna with LightGBM, on the search's rows, cores and wall time."""

from collections.abc import Iterator
from time import perf_counter
from types import ModuleType
from typing import Any

import pandas as pd

from bench import Result
from bench.search_lab import MONTHS, SEED, real_rows, searched
from storage.tracking.processes import n_cores
from taxi import spaces
from taxi.rows import Rows
from taxi.scores import score_predictions

HOW = "uv pip install -r pyproject.toml --extra bench -c requirements-dev.txt"
ROUNDS, PATIENCE = 2000, 50  # of LightGBM; more than ours, because the rate is searched too


def measure() -> Iterator[Result]:
    """Search on both years, then give each rival the same wall time."""
    try:
        import flaml
        import lightgbm
        import optuna
    except ImportError as error:
        yield Result(f"FLAML, Optuna + LightGBM: {error.name} is missing; {HOW}", "", "")
        return
    for year in MONTHS:
        rows = real_rows(year)
        ours = searched(spaces.select_space("lossguide"), rows)
        seconds = ours.search.wall + ours.choice.wall
        theirs = {
            "FLAML": flaml_rmse(flaml, rows, seconds),
            "Optuna + LightGBM": optuna_rmse(optuna, lightgbm, rows, seconds),
        }
        for name, rmse in theirs.items():
            yield Result(
                f"{year}, {seconds:.0f} s each, {n_cores()} cores: valid RMSE of {name}, less ours",
                f"{rmse - ours.rmse:+.3f} min ({rmse:.3f} / {ours.rmse:.3f})",
                "0",
            )


def flaml_rmse(flaml: ModuleType, rows: Rows, seconds: float) -> float:
    """Let FLAML choose among all estimators that it finds installed, by RMSE on valid."""
    # only in frames does FLAML fill missing values, for estimators that refuse them
    train, valid = (pd.DataFrame(matrix).rename(columns=str) for matrix in (rows.train, rows.valid))
    automl = flaml.AutoML()
    automl.fit(
        train,
        rows.train_y,
        X_val=valid,
        y_val=rows.valid_y,
        task="regression",
        metric="rmse",
        time_budget=seconds,
        eval_method="holdout",
        retrain_full=False,  # a model retrained on valid too could not be judged on it
        n_jobs=n_cores(),
        seed=SEED,
        mlflow_logging=False,
        verbose=0,
    )
    return score_predictions(rows.valid_y, automl.predict(valid))["rmse"]


def optuna_rmse(optuna: ModuleType, lightgbm: ModuleType, rows: Rows, seconds: float) -> float:
    """Let Optuna's TPE search LightGBM, with its median rule for pruning."""
    # min_child_samples differs from trial to trial, so no feature may be filtered in advance
    options = {"free_raw_data": False, "params": {"verbosity": -1, "feature_pre_filter": False}}
    train = lightgbm.Dataset(rows.train, rows.train_y, **options).construct()
    valid = lightgbm.Dataset(rows.valid, rows.valid_y, reference=train, **options).construct()

    seen: list[float] = []  # RMSE after every round, so that a trial cut off by time counts too

    def objective(trial: Any) -> float:
        def report(now: Any) -> None:
            rmse = now.evaluation_result_list[0][2]
            seen.append(rmse)
            trial.report(rmse, now.iteration)
            if trial.should_prune() or perf_counter() > end:
                raise optuna.TrialPruned

        booster = lightgbm.train(
            lightgbm_parameters(trial),
            train,
            ROUNDS,
            valid_sets=[valid],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False), report],
        )
        return float(booster.best_score["valid_0"]["rmse"])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=SEED),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=30),
    )
    end = perf_counter() + seconds
    study.optimize(objective, timeout=seconds)
    return min(seen)


def lightgbm_parameters(trial: Any) -> dict[str, Any]:
    """Suggest the parameters of Optuna's own LightGBM example, and the learning rate."""
    return {
        "objective": "regression",
        "metric": "rmse",
        "verbosity": -1,
        "num_threads": n_cores(),
        "seed": SEED,
        "feature_pre_filter": False,
        "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.3, log=True),
        "lambda_l1": trial.suggest_float("lambda_l1", 1e-8, 10, log=True),
        "lambda_l2": trial.suggest_float("lambda_l2", 1e-8, 10, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 2, 256),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.4, 1),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.4, 1),
        "bagging_freq": trial.suggest_int("bagging_freq", 1, 7),
        "min_child_samples": trial.suggest_int("min_child_samples", 5, 100),
    }
