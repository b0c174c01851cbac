"""Results of a search: how its trials ended, their curves, the importance of parameters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score

from .search import Failure, Trial

MAX_POINTS = 60  # of a learning curve in the table
N_TREES, N_SHUFFLES = 200, 20
MIN_TRIALS = 10  # fewer are too few to estimate the importance of parameters


def state_of(trial: Trial) -> str:
    """Return how a trial ended: finished, pruned or failed."""
    if trial.outcome is None:
        return "failed"
    return "pruned" if trial.outcome.pruned else "finished"


def trials_table(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return a row for each trial: how it ended, its RMSE in minutes, its rounds, its point."""
    names = list(trials[0].point)
    return [
        {
            "trial": trial.number,
            "state": state_of(trial),
            **_outcome_columns(trial),
            **{name: trial.point[name] for name in names},
            "failure": trial.result.reason if isinstance(trial.result, Failure) else "",
        }
        for trial in trials
    ]


def _outcome_columns(trial: Trial) -> dict[str, Any]:
    outcome = trial.outcome
    if outcome is None:
        return dict.fromkeys(("rmse", "best_round", "n_rounds", "train_seconds"), "")
    return {
        "rmse": outcome.rmse,
        "best_round": outcome.best_round,
        "n_rounds": outcome.n_rounds,
        "train_seconds": round(outcome.seconds, 3),
    }


def curves_table(trials: Sequence[Trial]) -> list[dict[str, float]]:
    """Return the learning curves as rows: trial, round from 0, validation RMSE in minutes.

    A long curve is thinned to MAX_POINTS, first and best round included.
    """
    return [
        {
            "trial": trial.number,
            "round": trial.outcome.rounds[index],
            "rmse": round(trial.outcome.curve[index], 6),
        }
        for trial in trials
        if trial.outcome
        for index in _shown_indices(trial.outcome.curve)
    ]


def _shown_indices(curve: Sequence[float]) -> list[int]:
    indices = np.linspace(0, len(curve) - 1, min(len(curve), MAX_POINTS - 1)).astype(int)
    return sorted({*indices.tolist(), int(np.argmin(curve))})


def searched_values(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """Collect the trials' values by parameter: name -> float64 [t].

    The objective, if there are several, is numbered in alphabetical order.
    """
    columns: dict[str, np.ndarray] = {}
    for name in trials[0].point:
        values = [trial.point[name] for trial in trials]
        if isinstance(values[0], str):
            kinds = sorted(set(values))
            if len(kinds) == 1:
                continue
            name, values = " / ".join(kinds), [kinds.index(value) for value in values]
        columns[name] = np.array(values, float)
    return columns


def parameter_importance(trials: Sequence[Trial], seed: int) -> dict[str, float]:
    """Estimate how much of the RMSE each parameter explains.

    Args:
        trials: those that failed are left out.
        seed: of the forest and the shuffles.
    Returns:
        Parameter -> share of a forest's explained variance lost when its values are shuffled, most
        important first; empty if fewer than MIN_TRIALS have an RMSE, or nothing was searched.
    Source: Breiman, Random Forests, 2001 (permutation importance).
    """
    shown = [trial for trial in trials if trial.outcome]
    columns = searched_values(shown) if len(shown) >= MIN_TRIALS else {}
    if not columns:
        return {}
    points = np.column_stack(list(columns.values()))
    # ranks, so that a single absurd trial does not account for all the variance
    rmse = rankdata([trial.outcome.rmse for trial in shown if trial.outcome]) - 1
    forest = RandomForestRegressor(N_TREES, min_samples_leaf=2, random_state=seed, n_jobs=1)
    forest.fit(points, rmse)
    importances = permutation_importance(
        forest, points, rmse, scoring=explained_variance, n_repeats=N_SHUFFLES, random_state=seed
    )
    pairs = zip(columns, importances.importances_mean, strict=True)
    return {name: float(share) for name, share in sorted(pairs, key=lambda pair: -pair[1])}


def explained_variance(
    forest: RandomForestRegressor, points: np.ndarray, rmse: np.ndarray
) -> float:
    """Compute the share of variance that a forest explains, as its own `score` does.

    `score` validates the few points again for each tree, which takes ten times as long.

    Args:
        forest: fitted.
        points: [t, k].
        rmse: [t], the target.
    """
    values = np.asarray(points, np.float32)
    total = np.zeros(len(values))
    for tree in forest.estimators_:
        total += tree.tree_.predict(values)[:, 0]
    return float(r2_score(rmse, total / len(forest.estimators_)))
