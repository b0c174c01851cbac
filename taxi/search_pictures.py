"""The pictures of a search: its history, its points, the importance of its parameters."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from .search import Trial, best_trial
from .search_results import searched_values, state_of
from .style import BLACK, BLUE, GREY, ORANGE, PURPLE, styled

LOG_RATIO = 20.0  # a parameter whose max / min is larger has a logarithmic axis
MARGIN = 0.02  # minutes, at the top and bottom of a picture
WORST_QUANTILE = 0.9  # worse trials share one colour: a few bad ones would take up the whole scale


@styled
def draw_history(trials: Sequence[Trial]) -> Figure:
    """Draw each trial's RMSE, and the best so far as steps.

    Trials far worse than most are drawn at the upper edge, so that the others remain legible.
    """
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axis = figure.subplots()
    scored = [(trial.number, trial.outcome.rmse) for trial in trials if trial.outcome]
    numbers, best = [n for n, _ in scored], np.minimum.accumulate([rmse for _, rmse in scored])
    edge = float(np.quantile([rmse for _, rmse in scored], WORST_QUANTILE)) + MARGIN
    axis.step(numbers, np.minimum(best, edge), where="post", c=GREY, label="best so far", zorder=1)
    for state, marker, colour in (("finished", "o", BLUE), ("pruned", "x", PURPLE)):
        shown = [t for t in trials if t.outcome and state_of(t) == state]
        rmse = [min(t.outcome.rmse, edge) for t in shown if t.outcome]
        label = f"{state} ({len(shown)})"
        axis.plot([t.number for t in shown], rmse, marker, c=colour, label=label)
    _draw_edge(axis, trials, edge)
    _mark_best(axis, trials)
    axis.set_ylim(best[-1] - MARGIN, edge + MARGIN / 2)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="trial", ylabel="RMSE on valid, min")
    axis.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return figure


def _draw_edge(axis: Axes, trials: Sequence[Trial], edge: float) -> None:
    """Mark the trials that are beyond the edge, and those that failed and have no RMSE."""
    beyond = [t.number for t in trials if t.outcome and t.outcome.rmse > edge]
    failed = [t.number for t in trials if not t.outcome]
    for numbers, marker, colour, label in (
        (beyond, "^", BLACK, f"above {edge:.2f} min"),
        (failed, "v", ORANGE, "failed"),
    ):
        if numbers:
            heights = [edge + MARGIN / 4] * len(numbers)
            axis.plot(numbers, heights, marker, c=colour, label=f"{label} ({len(numbers)})")


def _mark_best(axis: Axes, trials: Sequence[Trial]) -> None:
    best = best_trial(trials)
    rmse = best.outcome.rmse if best.outcome else 0.0
    label = f"best: trial {best.number}"
    axis.plot(best.number, rmse, "*", c=ORANGE, markersize=18, label=label, zorder=3)
    states = Counter(map(state_of, trials))
    counts = ", ".join(f"{n} {state}" for state, n in states.items())
    axis.set_title(f"Trial {best.number} is best with {rmse:.3f} min, of {len(trials)} ({counts})")


@styled
def draw_parallel(trials: Sequence[Trial]) -> Figure:
    """Draw each finished trial as a line across its parameters, coloured by its RMSE, min."""
    shown = [trial for trial in trials if trial.outcome]
    rmse = np.array([trial.outcome.rmse for trial in shown if trial.outcome])
    columns = searched_values(shown)
    names = list(columns)
    figure = Figure(figsize=(2 * len(names) + 2, 5), layout="constrained")
    axis = figure.subplots()
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    kinds = [name.split(" / ") if " / " in name else [] for name in names]
    heights = np.column_stack(
        [_axis(axis, x, columns[name], kinds[x]) for x, name in enumerate(names)]
    )
    worst = np.quantile(rmse, WORST_QUANTILE)
    colours = figure.colorbar(
        _colour_scale(axis, rmse.min(), worst), ax=axis, label="RMSE on valid, min", extend="max"
    )
    for index in np.argsort(-rmse):  # the best on top
        colour = colours.cmap(colours.norm(min(rmse[index], worst)))
        axis.plot(range(len(names)), heights[index], color=colour, alpha=0.7)
    best = int(rmse.argmin())
    label = f"best: trial {shown[best].number}"
    axis.plot(range(len(names)), heights[best], "*-", c=ORANGE, lw=2.5, ms=12, label=label)
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.12))
    axis.set_title(f"Where the best of {len(shown)} trials lie; a line is a trial", pad=20)
    headers = [
        "objective" if kinds_of_axis else name
        for name, kinds_of_axis in zip(names, kinds, strict=True)
    ]
    axis.set_xticks(range(len(names)), headers)
    axis.set_yticks([])
    return figure


def _axis(axis: Axes, x: int, values: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Draw one parameter's axis; return the height of each trial on it, float64 [t] in 0..1.

    Args:
        axis: of all parameters.
        x: place of this one.
        values: [t].
        kinds: names of its two values, if they are not numbers.
    """
    low, high = values.min(), values.max()
    axis.axvline(x, c="black", lw=0.8)
    ends = kinds or [f"{low:.3g}", f"{high:.3g}"]
    halo = [withStroke(linewidth=4, foreground="white")]  # the axis runs through the text
    for height, text, side in ((0, ends[0], "top"), (1, ends[-1], "bottom")):
        axis.annotate(text, (x, height), ha="center", va=side, path_effects=halo)
    if low > 0 and high / low > LOG_RATIO:
        values, low, high = np.log(values), np.log(low), np.log(high)
    return np.asarray((values - low) / max(high - low, 1e-12))


def _colour_scale(axis: Axes, low: float, high: float) -> Any:
    return axis.scatter([], [], c=[], cmap="viridis", vmin=low, vmax=max(high, low + 1e-9))


@styled
def draw_parameter_importance(importance: Mapping[str, float]) -> Figure:
    """Draw the share that each parameter explains, most important on top.

    Args:
        importance: by `parameter_importance`.
    """
    figure = Figure(figsize=(8, 0.4 * len(importance) + 1), layout="constrained")
    axis = figure.subplots()
    names = list(importance)[::-1]
    bars = axis.barh(names, [100 * importance[name] for name in names], color=BLUE)
    axis.bar_label(bars, fmt="%.0f %%", padding=3)
    axis.margins(x=0.1)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("explained variance of RMSE that is lost by shuffling the parameter, %")
    figure.suptitle(f"{names[-1]} mattered most")
    return figure
