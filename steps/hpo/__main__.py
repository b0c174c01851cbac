"""Search xgboost's parameters with TPE, one child run per trial, and refit the winner.

python -m steps.hpo --source=simulated --max_evals=10
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import xgboost as xgb
from mlflow.models import infer_signature

from steps.common.candidates import N_EXAMPLE_ROWS, log_candidate, read_profiles, report_on
from steps.common.inputs import load_trips, log_inputs
from steps.common.parameters import HpoParameters
from steps.common.pipeline import Pipeline
from steps.common.results import write_best
from steps.common.search_key import SearchSettings, read_settings
from steps.common.step import step_run
from steps.common.validate import check_search
from steps.hpo.executor import TrialExecutor, open_executor
from steps.hpo.search import Budget, run_search
from storage.checkout import run_command
from storage.tracking import artifacts, models, runs, tags
from storage.tracking.trials import TrialRuns
from taxi import evaluation, features, search
from taxi.boosting import Outcome, TrainingJob, make_rows
from taxi.features import Encoder
from taxi.model import TripModel
from taxi.search import Trial
from taxi.spaces import SearchSpace

MODEL = "xgboost"
N_SEEDS = 3  # of the search's first point, to tell what a seed makes


def main(argv: Sequence[str] | None = None) -> None:
    """Read train and valid trips, search, refit the best points, log them as a model."""
    with step_run(HpoParameters, __doc__, argv) as params:
        scheduler, device = params.scheduler, params.device
        check_search(
            space=params.search_space, features=params.features, device=device, scheduler=scheduler
        )
        settings = read_settings(params)
        budget = Budget(params.max_evals, params.max_minutes, params.parallelism)
        resume = partial(run_command, "hpo", params.rerun_texts())
        pipeline = Pipeline(params)
        preprocess = pipeline.preprocess()
        pipeline.tag("hpo")
        train, valid = (load_trips(preprocess, split) for split in ("train", "valid"))
        log_inputs(preprocess, {"train": "training", "valid": "validation"})

        encoder = features.fit_encoder(settings.features, train)
        rows = make_rows(encoder, train, valid)
        log = TrialRuns(settings.search_key(rows.key), {tags.MODEL: MODEL})
        with open_executor(
            rows, scheduler=scheduler, device=device, parallelism=budget.parallelism
        ) as executor:
            trials = run_search(settings, budget, executor, log, reuse=params.reuse, resume=resume)
            log_noise(settings, executor, trials)
            with runs.child_run("refit", {tags.MODEL: MODEL, tags.FEATURES: settings.features}):
                boosters = refit(settings, executor, trials)
                model = TripModel(preprocess.dataset.taxi, encoder, boosters)
                report = report_on(model, valid)
                log_candidate(model, report, read_profiles(preprocess.run_id))
                log_parts(boosters[0], encoder, rows.train, rows.valid)
        scores = report.scores
        write_best(MODEL, scores)
        n_trees = sum(booster.num_boosted_rounds() for booster in boosters)
        print(f"refit: rmse {scores['rmse']:.4f} min, {n_trees} trees in {len(boosters)} boosters")


def log_noise(settings: SearchSettings, executor: TrialExecutor, trials: list[Trial]) -> None:
    """Log what the search gained over its first point, and what the luck of a seed makes there."""
    first = trials[0]
    if len(trials) == 1 or first.outcome is None:
        return
    seeds = [settings.seed + number for number in range(1, N_SEEDS)]
    points = [settings.common | first.point | {"seed": seed} for seed in seeds]
    others = train_all(executor, [make_job(settings.space, point) for point in points])
    noise = float(np.std([first.outcome.rmse, *(other.rmse for other in others)], ddof=1))
    gain = first.outcome.rmse - min(trial.outcome.rmse for trial in trials if trial.outcome)
    mlflow.log_metrics({tags.SEARCH_GAIN: gain, tags.SEED_NOISE: noise})
    print(f"search: {gain:.4f} min better than its first point, where a seed makes {noise:.4f} min")


def refit(
    settings: SearchSettings, executor: TrialExecutor, trials: list[Trial]
) -> list[xgb.Booster]:
    """Train the best points once more, more slowly, each with a seed of its own.

    Points that differ make boosters that differ, whose average is worth more than that of one point
    with as many seeds.
    """
    space, n_boosters = settings.space, settings.space.n_boosters
    best = search.best_trials(trials, n_boosters)
    chosen = [best[number % len(best)] for number in range(n_boosters)]
    points = [
        settings.common | trial.point | dict(space.refit) | {"seed": settings.seed + number}
        for number, trial in enumerate(chosen)
    ]
    mlflow.log_params(points[0])
    jobs = [
        make_job(space, point)._replace(rounds=space.refit_rounds, keep=True) for point in points
    ]
    outcomes = train_all(executor, jobs)
    rows = [
        {"trial": trial.number, "rmse": outcome.rmse, tags.BEST_ROUND: outcome.best_round, **point}
        for trial, outcome, point in zip(chosen, outcomes, points, strict=True)
    ]
    artifacts.log_table(rows, tags.BOOSTERS_TABLE)
    return [outcome.booster for outcome in outcomes if outcome.booster]


def make_job(space: SearchSpace, point: dict[str, Any]) -> TrainingJob:
    """Make the job of training a point once, on one thread and to its end."""
    return TrainingJob(point | {"nthread": 1}, space.rounds, space.patience)


def train_all(executor: TrialExecutor, jobs: list[TrainingJob]) -> list[Outcome]:
    """Train several boosters at once; the outcomes in the order of the jobs."""
    return [future.result() for future in [executor.submit(job) for job in jobs]]


def log_parts(booster: xgb.Booster, encoder: Encoder, train: Any, valid: Any) -> None:
    """Log a booster and the preprocessor one by one too, and what the booster looks at.

    Args:
        booster: the first one.
        encoder: of the preprocessor, as the course keeps it.
        train, valid: [n, k] and [m, k], float32 or CSR.
    """
    is_dense = isinstance(train, np.ndarray)
    rows = train[:N_EXAMPLE_ROWS]
    example = pd.DataFrame(rows, columns=encoder.names) if is_dense else rows
    mlflow.log_dict(encoder.state(), tags.PREPROCESSOR)
    mlflow.xgboost.log_model(
        booster,
        name=tags.NATIVE_MODEL,
        model_format="ubj",
        signature=infer_signature(example, booster.inplace_predict(example)),
        input_example=example,
        pip_requirements=models.pins(),
    )
    if is_dense:
        importance = evaluation.feature_importance(booster, valid, encoder.names)
        table = [{"feature": name, **values} for name, values in importance.items()]
        artifacts.log_table(table, tags.IMPORTANCE_TABLE)
        mlflow.log_figure(evaluation.draw_feature_importance(importance), tags.IMPORTANCE_PICTURE)


if __name__ == "__main__":
    main()
