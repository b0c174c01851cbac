"""The report of a search: its table, its history, the importance of its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score

from .search import Failure, Trial

N_TREES, N_SHUFFLES = 200, 20
MIN_TRIALS = 10  # fewer say nothing about which parameter matters
LOG_RATIO = 20.0  # a parameter that spans more than this is laid out by its logarithm
WORST_QUANTILE = 0.9  # trials beyond share one colour: a few bad ones would hide all the others


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
        "n_rounds": len(outcome.curve),
        "train_seconds": round(outcome.seconds, 3),
    }


def draw_history(trials: Sequence[Trial]) -> Figure:
    """Draw each trial's RMSE, and the best so far as steps."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    for state, marker, colour in (("finished", "o", "tab:blue"), ("pruned", "x", "tab:gray")):
        shown = [(t.number, t.outcome.rmse) for t in trials if t.outcome and state_of(t) == state]
        numbers, rmse = zip(*shown, strict=True) if shown else ((), ())
        axis.plot(numbers, rmse, marker, c=colour, label=f"{state} ({len(shown)})")
    scored = [(trial.number, trial.outcome.rmse) for trial in trials if trial.outcome]
    best = np.minimum.accumulate([rmse for _, rmse in scored])
    axis.step(
        [number for number, _ in scored], best, where="post", c="tab:red", label="best so far"
    )
    axis.set_ylim(best[-1] - 0.02, np.quantile([rmse for _, rmse in scored], WORST_QUANTILE) + 0.02)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="trial", ylabel="valid RMSE, min", title="the search")
    axis.legend()
    return figure


def draw_parallel(trials: Sequence[Trial]) -> Figure:
    """Draw each finished trial as a line across its parameters, coloured by its RMSE, min."""
    shown = [trial for trial in trials if trial.outcome]
    rmse = np.array([trial.outcome.rmse for trial in shown if trial.outcome])
    columns = searched_values(shown)
    names = list(columns)
    figure = Figure(figsize=(2 * len(names) + 2, 5), layout="constrained")
    axis = figure.subplots()
    heights = np.column_stack([_axis(axis, x, columns[name]) for x, name in enumerate(names)])
    worst = np.quantile(rmse, WORST_QUANTILE)
    colours = figure.colorbar(
        _shades(axis, rmse.min(), worst), ax=axis, label="valid RMSE, min", extend="max"
    )
    for place in np.argsort(-rmse):  # the best on top
        colour = colours.cmap(colours.norm(min(rmse[place], worst)))
        axis.plot(range(len(names)), heights[place], color=colour, alpha=0.7)
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks([])
    return figure


def searched_values(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """Lay the points out by parameter: name -> float64 [t].

    The objective, where there are two, is told by its place in the alphabet.
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


def _axis(axis: Axes, x: int, values: np.ndarray) -> np.ndarray:
    """Draw one parameter's axis; return the height of each trial on it, float64 [t] in 0..1."""
    low, high = values.min(), values.max()
    axis.axvline(x, c="black", lw=0.8)
    for height, value, side in ((0, low, "top"), (1, high, "bottom")):
        axis.annotate(f"{value:.3g}", (x, height), ha="center", va=side)
    if low > 0 and high / low > LOG_RATIO:
        values, low, high = np.log(values), np.log(low), np.log(high)
    return np.asarray((values - low) / max(high - low, 1e-12))


def _shades(axis: Axes, low: float, high: float) -> Any:
    return axis.scatter([], [], c=[], cmap="viridis", vmin=low, vmax=max(high, low + 1e-9))


def parameter_importance(trials: Sequence[Trial], seed: int) -> dict[str, float]:
    """Estimate how much of the RMSE each parameter explains.

    Args:
        trials: those that failed are left out.
        seed: of the forest and the shuffles.
    Returns:
        Parameter -> share of a forest's explained variance lost when its values are shuffled, most
        important first; empty where fewer than MIN_TRIALS have an RMSE, or nothing was searched.
    Source: Breiman, Random Forests, 2001 (permutation importance).
    """
    shown = [trial for trial in trials if trial.outcome]
    columns = searched_values(shown) if len(shown) >= MIN_TRIALS else {}
    if not columns:
        return {}
    points = np.column_stack(list(columns.values()))
    # ranks: one absurd trial must not be all there is to explain
    rmse = np.argsort(np.argsort([trial.outcome.rmse for trial in shown if trial.outcome]))
    forest = RandomForestRegressor(N_TREES, min_samples_leaf=2, random_state=seed, n_jobs=1)
    forest.fit(points, rmse)
    lost = permutation_importance(
        forest, points, rmse, scoring=explained, n_repeats=N_SHUFFLES, random_state=seed
    )
    pairs = zip(columns, lost.importances_mean, strict=True)
    return {name: float(share) for name, share in sorted(pairs, key=lambda pair: -pair[1])}


def explained(forest: RandomForestRegressor, points: np.ndarray, rmse: np.ndarray) -> float:
    """Compute the share of variance that a forest explains, as its own `score` does.

    That checks the few points anew for each tree, which takes ten times as long as the answer.

    Args:
        forest: fitted.
        points: [t, k].
        rmse: [t], what it should say.
    """
    values = np.asarray(points, np.float32)
    total = np.zeros(len(values))
    for tree in forest.estimators_:
        total += tree.tree_.predict(values)[:, 0]
    return float(r2_score(rmse, total / len(forest.estimators_)))


def draw_parameter_importance(importance: Mapping[str, float]) -> Figure:
    """Draw the share that each parameter explains, most important on top.

    Args:
        importance: of `parameter_importance`.
    """
    figure = Figure(figsize=(8, 0.4 * len(importance) + 1), layout="constrained")
    axis = figure.subplots()
    names = list(importance)[::-1]
    axis.barh(names, [importance[name] for name in names])
    axis.set(xlabel="explained variance lost by shuffling", title="which parameters mattered")
    return figure
