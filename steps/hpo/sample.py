"""Trials on a sample, where there are more trips than they need: the model is trained on all."""

from typing import NamedTuple

import mlflow

from steps.common.search_key import SearchSettings
from steps.hpo.ensemble import Trained, train_points
from steps.hpo.executor import TrialExecutor
from storage.tracking import tags
from taxi import sampling
from taxi.boosting import predict_each
from taxi.rows import Rows
from taxi.schema import Trips
from taxi.scores import rmse


class Seen(NamedTuple):
    """The trips that trials are trained on and judged by: all there are, or a sample."""

    train: Trips
    valid: Trips
    n_all: dict[str, int]  # trips that there are: split -> trips
    words: str = ""  # which share it is, where some are left out

    @property
    def leaves_out_train(self) -> bool:
        """Whether the trials miss train trips that the model is to know."""
        return len(self.train) < self.n_all["train"]


def draw_seen(train: Trips, valid: Trips, bound: int, *, seed: int) -> Seen:
    """Draw at most so many trips of each split, and log it where some are left out; 0 = all."""
    splits = {"train": train, "valid": valid}
    drawn = {name: sampling.take_sample(trips, bound, seed=seed) for name, trips in splits.items()}
    n_all = {name: len(trips) for name, trips in splits.items()}
    if not bound:
        return Seen(train, valid, n_all)
    words = ", ".join(f"{len(drawn[name]):,} of {n:,} {name} trips" for name, n in n_all.items())
    mlflow.log_metrics({tags.N_SEEN.of(name): len(trips) for name, trips in drawn.items()})
    print(f"search: its trials see {words}")
    return Seen(drawn["train"], drawn["valid"], n_all, words)


def train_on_all(
    settings: SearchSettings, executor: TrialExecutor, chosen: list[Trained]
) -> list[Trained]:
    """Train the chosen points on all train trips, each to the round that is best there.

    Args:
        settings: of the search.
        executor: of all train rows, and of the valid rows that the trials were judged by.
        chosen: as the search has trained them on its sample.
    """
    outcomes = train_points(settings, executor, [dict(one.member.parameters) for one in chosen])
    return [
        Trained(
            one.trial,
            outcome.rmse,
            one.member._replace(rounds=outcome.best_round + 1),
            outcome.booster,
        )
        for one, outcome in zip(chosen, outcomes, strict=True)
        if outcome.booster
    ]


def log_cost(chosen: list[Trained], on_all: list[Trained], rows: Rows) -> str:
    """Log what it would have cost to keep to the sample; returns it in words.

    Args:
        chosen, on_all: the same points, trained on the sample and on all train trips.
        rows: whose valid rows judge both.
    """
    of_sample, of_all = (average_rmse(boosters, rows) for boosters in (chosen, on_all))
    mlflow.log_metric(tags.SAMPLE_COST, of_sample - of_all)
    words = (
        f"the same boosters, trained on all train trips, have RMSE {of_all:.4f} min, and "
        f"{of_sample:.4f} min on the sample alone: it would cost {of_sample - of_all:.4f} min"
    )
    print(f"search: {words}")
    return words


def tell_sample(seen: Seen, cost: str) -> str:
    """Say on the page what the trials saw, and what that cost; nothing where they saw all."""
    told = f"Trials saw {seen.words}; the model is of all." if seen.words else ""
    return f"{told} Of the sample: {cost}." if cost else told


def average_rmse(boosters: list[Trained], rows: Rows) -> float:
    """Measure the average of boosters on the valid rows, RMSE in minutes."""
    predicted = predict_each([one.booster for one in boosters], rows.valid)
    return rmse(predicted.mean(axis=0) - rows.valid_y)
