"""Search xgboost's parameters with TPE, one child run per trial; the best boosters are a model.

python -m steps.hpo --source=simulated --max_evals=10
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import xgboost as xgb
from mlflow.models import infer_signature
from scipy.sparse import issparse

from steps.common import page
from steps.common.candidates import (
    N_EXAMPLE_ROWS,
    Lineage,
    log_candidate,
    read_profiles,
    report_candidate,
)
from steps.common.inputs import LearningTrips, open_learning
from steps.common.parameters import HpoParameters
from steps.common.pipeline import Pipeline
from steps.common.results import PreprocessResult, write_best
from steps.common.search_key import SearchSettings, read_settings
from steps.common.step import step_run
from steps.common.validate import check_search
from steps.hpo import sample
from steps.hpo.ensemble import (
    TrainedBooster,
    choose_boosters,
    log_boosters,
    train_seeds,
    train_without_distance,
)
from steps.hpo.executor import open_executor
from steps.hpo.sample import TrialTrips
from steps.hpo.search import Budget, run_search
from storage.tracking import artifacts, duplicates, models, runs, tags
from storage.tracking.trials import TrialRuns
from taxi import evaluation, features, maps, rows, search_results
from taxi.batches import sample_matrix
from taxi.days import describe_months_beyond_calendar
from taxi.features import DenseFeatures, Encoder
from taxi.model import TripModel
from taxi.recipes import WEIGHT_WITHOUT_DISTANCE, Recipe
from taxi.rows import Rows
from taxi.search import Trial, best_trial
from taxi.words import format_count

MODEL = "xgboost"


def main(argv: Sequence[str] | None = None) -> None:
    """Read train and valid trips, search, choose boosters, log them as a model."""
    with step_run(HpoParameters, __doc__, argv) as params:
        check_search(params)
        settings = read_settings(params)
        pipeline = Pipeline(params)
        preprocess = pipeline.preprocess()
        pipeline.tag("hpo")
        trips = open_learning(preprocess)
        encoder = features.fit_encoder(settings.features, trips.train, trips.city)
        print_uncovered_months(encoder, preprocess.dataset.months)
        result = search_boosters(params, settings, preprocess, encoder, trips)
        with runs.child_run("ensemble", {tags.MODEL: MODEL, tags.FEATURES: settings.features}):
            scores = log_ensemble(settings, preprocess, encoder, trips, result)
        write_search_results(params, preprocess, result, scores)


def print_uncovered_months(encoder: Encoder, months: Mapping[str, Sequence[str]]) -> None:
    """Print which months of the splits an encoder's school calendar does not cover."""
    if not isinstance(encoder, DenseFeatures):
        return
    if line := describe_months_beyond_calendar(
        chain.from_iterable(months.values()), encoder.around.recess
    ):
        print(line)


class SearchResult(NamedTuple):
    """The result of a search."""

    trials: list[Trial]
    with_distance: list[TrainedBooster]  # boosters for trips with a distance, or for all trips
    without_distance: list[TrainedBooster]  # for trips without; [] if they have none of their own
    rows: Rows  # that the boosters with_distance were trained on
    trial_trips: TrialTrips
    cost: str  # what sampling would have cost, in words; empty if the trials saw all train trips


def search_boosters(
    params: HpoParameters,
    settings: SearchSettings,
    preprocess: PreprocessResult,
    encoder: Encoder,
    trips: LearningTrips,
) -> SearchResult:
    """Search, with a child run per trial, and choose the boosters of the model.

    Args:
        params: of hpo.
        settings: those of them that determine the course of the search.
        preprocess: the run that made the trips.
        encoder: fitted on the train trips.
        trips: train and validation trips.
    """
    budget = Budget(params.max_evals, params.max_minutes, params.parallelism)
    # look up the experiment's name now: the command is needed when the store is gone, too
    resume = partial(page.rerun_command, params, experiment=runs.experiment_name())
    log = TrialRuns(settings.search_key(preprocess), {tags.MODEL: MODEL})
    is_split = settings.space.is_split_by_distance
    is_split = is_split and rows.is_split_by_distance(encoder, *trips[:2])
    encode = rows.rows_with_distance if is_split else rows.make_rows
    row_options = settings.half_life, settings.space.max_bin
    trial_trips = sample.draw_trial_trips(
        *trips[:2], settings.max_trips(preprocess), seed=settings.seed
    )
    encoded = encode(encoder, trial_trips.train, trial_trips.valid, *row_options)
    opened = partial(
        open_executor,
        scheduler=params.scheduler,
        device=params.device,
        parallelism=params.parallelism,
    )
    with opened(encoded) as executor:
        trials = run_search(settings, budget, executor, log, reuse=params.reuse, resume=resume)
        seeds = train_seeds(settings, executor, trials)
        log_seed_noise(trials, seeds)
        with_distance = choose_boosters(settings, executor, trials, seeds, encoded)
    if trial_trips.leaves_out_train:
        del encoded  # frees the sample's rows before all trips are encoded
    without_distance = []
    if is_split:
        with opened(
            rows.rows_without_distance(encoder, trips.train, trial_trips.valid, *row_options)
        ) as executor:
            without_distance = train_without_distance(settings, executor, trials)
    if not trial_trips.leaves_out_train:
        return SearchResult(trials, with_distance, without_distance, encoded, trial_trips, "")
    encoded = encode(encoder, trips.train, trial_trips.valid, *row_options)
    with opened(encoded) as executor:
        on_all = sample.train_on_all(settings, executor, with_distance)
    cost = sample.log_sample_cost(with_distance, on_all, encoded)
    return SearchResult(trials, on_all, without_distance, encoded, trial_trips, cost)


def log_ensemble(
    settings: SearchSettings,
    preprocess: PreprocessResult,
    encoder: Encoder,
    trips: LearningTrips,
    result: SearchResult,
) -> dict[str, float]:
    """Log the chosen boosters to the active run as a model; return its validation scores."""
    with_distance, without_distance = result.with_distance, result.without_distance
    log_boosters(with_distance, without_distance)
    # before any scores are logged: MLflow copies a run's metrics to each model logged after them
    log_parts(with_distance[0].booster, encoder, result.rows.train, result.rows.valid)
    recipe = make_recipe(settings, with_distance, without_distance)
    parts = ([one.booster for one in part] for part in (with_distance, without_distance))
    model = TripModel(
        preprocess.dataset.taxi,
        encoder,
        *parts,
        weight_without_distance=recipe.weight_without_distance,
    )
    report = report_candidate(model, trips.valid)
    fitted_with = dict(with_distance[0].member.parameters)
    lineage = Lineage("hpo", MODEL, settings.features, preprocess, fitted_with)
    profiles = read_profiles(preprocess.run_id)
    log_candidate(model, report, profiles, lineage, trips.scored_on)
    mlflow.log_dict(recipe.state(), tags.RECIPE)
    if trips.city:
        picture = maps.draw_errors(trips.city, trips.valid, report.predicted)
        artifacts.log_figure(picture, tags.ERRORS_MAP)
    return report.scores


def write_search_results(
    params: HpoParameters,
    preprocess: PreprocessResult,
    result: SearchResult,
    scores: Mapping[str, float],
) -> None:
    """Report the search on the run, on its page and in the terminal."""
    write_best(MODEL, scores)
    boosters = [*result.with_distance, *result.without_distance]
    n_trees = format_count(sum(one.member.rounds for one in boosters), "tree")
    n_boosters = format_count(len(boosters), "booster")
    # where trips without a distance have boosters of their own, trials were scored on the others
    # only, but the model on all: its RMSE may be above the best trial's
    also = ", trips without a distance included;" if result.without_distance else ","
    print(f"ensemble: rmse {scores['rmse']:.4f} min{also} {n_trees} in {n_boosters}")
    longer = params.model_copy(update={"max_evals": 2 * len(result.trials)})
    page.write_verdict(
        page.scores_line(MODEL, scores, preprocess.dataset),
        sample.describe_sample(result.trial_trips, result.cost),
        f"{n_boosters} of {describe_trials(result.trials)}"
        f"{' on trips with a distance' if result.without_distance else ''}. Go on from these with:",
        page.as_code(page.rerun_command(longer)),
        dataset=preprocess.dataset,
        rmse=scores["rmse"],
    )


def make_recipe(
    settings: SearchSettings,
    with_distance: list[TrainedBooster],
    without_distance: list[TrainedBooster],
) -> Recipe:
    """Return the recipe of the model: how it was fitted."""
    members, without = (
        tuple(one.member for one in part) for part in (with_distance, without_distance)
    )
    return Recipe(
        settings.features,
        settings.seed,
        members=members,
        members_without_distance=without,
        weight_without_distance=WEIGHT_WITHOUT_DISTANCE if without_distance else 0.0,
        half_life=settings.half_life,
        max_bin=settings.space.max_bin,
    )


def describe_trials(trials: Sequence[Trial]) -> str:
    """Count the trials by how they ended, and name the best."""
    states = Counter(map(search_results.state_of, trials))
    best = best_trial(trials)
    ended = ", ".join(f"{states[state]} {state}" for state in ("pruned", "failed"))
    rmse = f", with {best.outcome.rmse:.3f} min alone" if best.outcome else ""
    return f"{format_count(len(trials), 'trial')} ({ended}), the best one trial {best.number}{rmse}"


def log_seed_noise(trials: list[Trial], seeds: list[TrainedBooster]) -> None:
    """Log the search's gain over its first point, and how much RMSE there varies with the seed."""
    first = trials[0]
    if not seeds or first.outcome is None:
        return
    noise = float(np.std([first.outcome.rmse, *(other.rmse for other in seeds)], ddof=1))
    gain = first.outcome.rmse - min(trial.outcome.rmse for trial in trials if trial.outcome)
    mlflow.log_metrics({tags.SEARCH_GAIN: gain, tags.SEED_NOISE: noise})
    print(
        f"search: {gain:.4f} min better than its first point; another seed changes that by "
        f"{noise:.4f} min"
    )


def log_parts(booster: xgb.Booster, encoder: Encoder, train: Any, valid: Any) -> None:
    """Log a booster and the preprocessor also by themselves, and the feature importance.

    Args:
        booster: the model's first.
        encoder: logged as the preprocessor, as the course does.
        train, valid: [n, k] and [m, k], float32, CSR or a BatchedMatrix.
    """
    is_dense = not issparse(train)
    rows = train[:N_EXAMPLE_ROWS]
    example = pd.DataFrame(rows, columns=encoder.names) if is_dense else rows
    mlflow.log_dict(encoder.state(), tags.PREPROCESSOR)
    save = partial(
        mlflow.xgboost.save_model,
        booster,
        model_format="ubj",
        signature=infer_signature(example, booster.inplace_predict(example)),
        input_example=example,
        pip_requirements=models.pinned_requirements(),
    )
    duplicates.log_model_once(runs.active_info().run_id, tags.NATIVE_MODEL, save)
    if is_dense:
        explained = sample_matrix(valid, evaluation.N_SHAP_ROWS)
        importance = evaluation.feature_importance(booster, explained, encoder.names)
        table = [{"feature": name, **values} for name, values in importance.items()]
        artifacts.log_table(table, tags.IMPORTANCE_TABLE)
        artifacts.log_figure(
            evaluation.draw_feature_importance(importance), tags.IMPORTANCE_PICTURE
        )


if __name__ == "__main__":
    main()
