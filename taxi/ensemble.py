"""Select the boosters of a search that make up the model, greedily by their score on valid.

Source: Caruana et al., Ensemble selection from libraries of models, 2004.
"""

from collections.abc import Sequence

import numpy as np

from .scores import rmse
from .search import Trial

POOL_SIZE = 6  # best trials of each objective to choose from
MIN_GAIN = 0.002  # minutes by which each booster after the first must lower validation RMSE


def candidate_pool(trials: Sequence[Trial]) -> list[Trial]:
    """List the trials to choose from: the best finished ones of each objective, best first."""
    finished = [trial for trial in trials if trial.outcome and not trial.outcome.pruned]
    best = sorted(finished, key=lambda t: (t.outcome.rmse if t.outcome else np.inf, t.number))
    pool: list[Trial] = []
    for trial in best:
        same = [one for one in pool if one.point["objective"] == trial.point["objective"]]
        if len(same) < POOL_SIZE:
            pool.append(trial)
    return pool


def choose_members(predictions: np.ndarray, minutes: np.ndarray, max_members: int) -> list[int]:
    """Choose predictions greedily by the RMSE of their average.

    Args:
        predictions: [t, m] minutes, by t boosters for m validation trips.
        minutes: [m] measured.
        max_members: maximum number; fewer if the next one gains less than MIN_GAIN.
    Returns:
        Rows of `predictions`, in the order in which they were chosen.
    """
    chosen: list[int] = []
    total, best = np.zeros(len(minutes)), np.inf
    while len(chosen) < min(max_members, len(predictions)):
        remaining = [row for row in range(len(predictions)) if row not in chosen]
        errors = [
            rmse((total + predictions[row]) / (len(chosen) + 1) - minutes) for row in remaining
        ]
        best_index = int(np.argmin(errors))
        if chosen and errors[best_index] > best - MIN_GAIN:
            break
        chosen.append(remaining[best_index])
        total, best = total + predictions[remaining[best_index]], errors[best_index]
    return chosen
