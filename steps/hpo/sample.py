"""Run trials on a sample where there are many trips; the model is then trained on all of them."""

from typing import NamedTuple

import mlflow

from steps.common.search_key import SearchSettings
from steps.hpo.ensemble import TrainedBooster, train_points
from steps.hpo.executor import TrialExecutor
from storage.tracking import tags
from taxi import sampling
from taxi.boosting import predict_each
from taxi.rows import Rows
from taxi.schema import Trips
from taxi.scores import rmse


class TrialTrips(NamedTuple):
    """The trips that trials are trained and scored on: all of them, or a sample."""

    train: Trips
    valid: Trips
    n_all: dict[str, int]  # split -> number of trips, those outside the sample included
    description: str = ""  # size of the sample in words; empty if it is all trips

    @property
    def leaves_out_train(self) -> bool:
        """Whether the trials see only a sample of the train trips."""
        return len(self.train) < self.n_all["train"]


def draw_trial_trips(train: Trips, valid: Trips, max_trips: int, *, seed: int) -> TrialTrips:
    """Draw at most `max_trips` trips of each split, 0 = all; log the counts if it is a sample."""
    splits = {"train": train, "valid": valid}
    drawn = {
        name: sampling.sample_trips_evenly(trips, max_trips, seed=seed)
        for name, trips in splits.items()
    }
    n_all = {name: len(trips) for name, trips in splits.items()}
    if not max_trips:
        return TrialTrips(train, valid, n_all)
    description = ", ".join(
        f"{len(drawn[name]):,} of {n:,} {name} trips" for name, n in n_all.items()
    )
    mlflow.log_metrics({tags.N_SEEN.of(name): len(trips) for name, trips in drawn.items()})
    print(f"search: its trials see {description}")
    return TrialTrips(drawn["train"], drawn["valid"], n_all, description)


def train_on_all(
    settings: SearchSettings, executor: TrialExecutor, chosen: list[TrainedBooster]
) -> list[TrainedBooster]:
    """Train the chosen points on all train trips, each to the round that is then best.

    Args:
        settings: of the search.
        executor: of all train rows, and of the validation rows that trials were scored on.
        chosen: the boosters as trained on the sample.
    """
    outcomes = train_points(settings, executor, [dict(one.member.parameters) for one in chosen])
    return [
        TrainedBooster(
            one.trial,
            outcome.rmse,
            one.member._replace(rounds=outcome.best_round + 1),
            outcome.booster,
        )
        for one, outcome in zip(chosen, outcomes, strict=True)
        if outcome.booster
    ]


def log_sample_cost(chosen: list[TrainedBooster], on_all: list[TrainedBooster], rows: Rows) -> str:
    """Log the RMSE that training on the sample alone would have cost; return it in words.

    Args:
        chosen, on_all: the same points, trained on the sample and on all train trips.
        rows: on whose validation rows both are scored.
    """
    of_sample, of_all = (average_rmse(boosters, rows) for boosters in (chosen, on_all))
    mlflow.log_metric(tags.SAMPLE_COST, of_sample - of_all)
    description = (
        f"the same boosters, trained on all train trips, have RMSE {of_all:.4f} min, and "
        f"{of_sample:.4f} min on the sample alone: it would cost {of_sample - of_all:.4f} min"
    )
    print(f"search: {description}")
    return description


def describe_sample(trial_trips: TrialTrips, cost: str) -> str:
    """Say for the page what the trials saw, and the sample's cost; empty if they saw all."""
    sentence = (
        f"Trials saw {trial_trips.description}; the model is of all."
        if trial_trips.description
        else ""
    )
    return f"{sentence} Of the sample: {cost}." if cost else sentence


def average_rmse(boosters: list[TrainedBooster], rows: Rows) -> float:
    """Return the RMSE, in minutes, of the boosters' average on the validation rows."""
    predicted = predict_each([one.booster for one in boosters], rows.valid)
    return rmse(predicted.mean(axis=0) - rows.valid_y)
