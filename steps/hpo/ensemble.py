"""Choose and train the boosters of a model from the trials of a search."""

from typing import Any, NamedTuple

import mlflow
import xgboost as xgb

from steps.common.search_key import SearchSettings
from steps.hpo.executor import TrialExecutor
from storage.tracking import artifacts, tags
from taxi.boosting import Outcome, TrainingJob, predict_each
from taxi.ensemble import candidate_pool, choose_members
from taxi.recipes import Member
from taxi.rows import Rows
from taxi.search import Trial

N_SEEDS = 3  # seeds tried at the search's first point, its own included, to measure seed noise


class TrainedBooster(NamedTuple):
    """A booster of the model, and where it comes from."""

    trial: int  # number of the trial whose point it was trained at
    rmse: float  # minutes, on the validation trips that it answers for
    member: Member
    booster: xgb.Booster


def train_seeds(
    settings: SearchSettings, executor: TrialExecutor, trials: list[Trial]
) -> list[TrainedBooster]:
    """Train the search's first point with other seeds; [] if it failed or is the only trial."""
    first = trials[0]
    if len(trials) == 1 or first.outcome is None:
        return []
    seeds = range(settings.seed + 1, settings.seed + N_SEEDS)
    points = [first.point | {"seed": seed} for seed in seeds]
    outcomes = train_points(settings, executor, points)
    pairs = zip(points, outcomes, strict=True)
    return [
        to_trained_booster(settings, first._replace(point=point), made) for point, made in pairs
    ]


def choose_boosters(
    settings: SearchSettings,
    executor: TrialExecutor,
    trials: list[Trial],
    seeds: list[TrainedBooster],
    rows: Rows,
) -> list[TrainedBooster]:
    """Choose, among the boosters of the best trials, those whose average is best on valid.

    Args:
        settings: of the search.
        executor: retrains the boosters of trials that an earlier process ran, to the same bits.
        trials: of the search.
        seeds: boosters of its first point, which may join if boosters are averaged.
        rows: that the trials were trained and scored on.
    """
    pool = train_missing(settings, executor, candidate_pool(trials))
    if settings.space.n_boosters > 1:
        pool += seeds
    predicted = predict_each([one.booster for one in pool], rows.valid)
    chosen = choose_members(predicted, rows.valid_y, settings.space.n_boosters)
    return [pool[place] for place in chosen]


def train_missing(
    settings: SearchSettings, executor: TrialExecutor, pool: list[Trial]
) -> list[TrainedBooster]:
    """Return the boosters of trials, training those that this process does not have."""
    missing = [trial for trial in pool if trial.outcome and not trial.outcome.booster]
    outcomes = train_points(settings, executor, [trial.point for trial in missing])
    made = {trial.number: outcome for trial, outcome in zip(missing, outcomes, strict=True)}
    found = ((trial, made.get(trial.number, trial.outcome)) for trial in pool)
    return [to_trained_booster(settings, trial, outcome) for trial, outcome in found if outcome]


def train_without_distance(
    settings: SearchSettings, executor: TrialExecutor, trials: list[Trial]
) -> list[TrainedBooster]:
    """Train the boosters for trips without a distance, one for each objective.

    Args:
        settings: of the search.
        executor: trains on the rows without distances.
        trials: of the search; the best point of each objective is used.
    """
    best: dict[str, Trial] = {}
    for trial in candidate_pool(trials):
        best.setdefault(trial.point["objective"], trial)
    outcomes = train_points(settings, executor, [trial.point for trial in best.values()])
    pairs = zip(best.values(), outcomes, strict=True)
    return [to_trained_booster(settings, trial, outcome) for trial, outcome in pairs]


def train_points(
    settings: SearchSettings, executor: TrialExecutor, points: list[dict[str, Any]]
) -> list[Outcome]:
    """Train a booster at each point, without pruning; return the outcomes in that order."""
    futures = [executor.submit(make_job(settings, point)) for point in points]
    return [future.result() for future in futures]


def make_job(settings: SearchSettings, point: dict[str, Any]) -> TrainingJob:
    """Make the job of training at a point, without pruning."""
    # two boosters at once on one thread each take less time than one after the other on two
    parameters, space = settings.common | point | {"nthread": 1}, settings.space
    return TrainingJob(
        parameters, space.rounds, space.patience, keep_booster=True, score_every=space.score_every
    )


def to_trained_booster(settings: SearchSettings, trial: Trial, outcome: Outcome) -> TrainedBooster:
    """Combine a booster with the trial and the parameters that it comes from."""
    if outcome.booster is None:
        raise ValueError(f"trial {trial.number} was pruned: it has no booster")
    member = Member(settings.common | trial.point, outcome.best_round + 1)
    return TrainedBooster(trial.number, outcome.rmse, member, outcome.booster)


def log_boosters(
    with_distance: list[TrainedBooster], without_distance: list[TrainedBooster]
) -> None:
    """Log the parameters of the first booster, and a table of all boosters."""
    mlflow.log_params(dict(with_distance[0].member.parameters))
    rows = [
        {
            "trial": one.trial,
            "distance": distance,
            "rmse": one.rmse,
            "rounds": one.member.rounds,
            **one.member.parameters,
        }
        for distance, part in (("known", with_distance), ("none", without_distance))
        for one in part
    ]
    artifacts.log_table(rows, tags.BOOSTERS_TABLE)
