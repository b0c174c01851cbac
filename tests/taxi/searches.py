"""Searches with cheap objective functions."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from taxi import search
from taxi.boosting import Outcome
from taxi.search import FinishedTrial, Trial
from taxi.spaces import SEARCH_SPACES, SearchSpace

SEARCHED = [name for name, space in SEARCH_SPACES.items() if space.ranges]
Objective = Callable[[Mapping[str, Any]], Outcome]


def outcome(rmse: float) -> Outcome:
    return Outcome(rmse=rmse, best_round=0, curve=[rmse], seconds=0.0, pruned=False, booster=None)


def valley(point: Mapping[str, Any]) -> Outcome:
    """A cheap objective with a single minimum."""
    values = [value for value in point.values() if not isinstance(value, str)]
    return outcome(sum((np.log(value) - i) ** 2 for i, value in enumerate(values)))


def run(
    space: SearchSpace,
    objective: Objective = valley,
    *,
    max_evals: int = 36,
    seed: int = 42,
    n_parallel: int = 1,
    finished: Mapping[int, FinishedTrial] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Trial]:
    """Search; return every trial that ended, ordered by number."""
    with ThreadPoolExecutor(n_parallel) as executor:
        found = search.search(
            space,
            lambda point, threshold: executor.submit(objective, point),
            max_evals=max_evals,
            seed=seed,
            n_parallel=n_parallel,
            finished=finished,
            should_stop=should_stop,
        )
        return sorted((t for t in found if t.result), key=lambda trial: trial.number)


def points(trials: list[Trial]) -> list[dict[str, Any]]:
    return [trial.point for trial in trials]
