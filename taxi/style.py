"""The common style of all pictures: a finding as the title, and colour-blind-safe colours.

Source: Okabe and Ito, Color Universal Design, 2008 (the colours).
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

if TYPE_CHECKING:  # half as slow to import as MLflow, and `main` imports this without drawing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK, GREY = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#56b4e9", "#e69f00", "#1b1f24", "#6b747d"),
)
COLOURS = [BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK, GREY]
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": "medium",
    "axes.titley": 1.0,  # otherwise every text above the axes is measured to place the title
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#d8dee4",
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "legend.frameon": False,
    "figure.titlesize": "large",
    "figure.titleweight": "bold",
}


def styled(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Make a function draw in the common style, whatever its process has configured."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        from matplotlib import rc_context
        from matplotlib.rcsetup import cycler

        with rc_context({**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}):
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> "Figure":
    """Make an empty picture of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


LEFT, RIGHT, TOP = 0.85, 0.06, 0.5  # inches around axes for their texts


def new_grid(
    width: float, height: float, n_rows: int = 1, n_columns: int = 1, *, below: float
) -> "tuple[Figure, np.ndarray]":
    """Make a picture with a grid of axes in fixed places, which saves measuring every text twice.

    Args:
        width, height: inches.
        n_rows, n_columns: of the grid.
        below: inches for the texts below axes.
    Returns:
        The picture, and its axes [n_rows, n_columns].
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    wide = (width - n_columns * LEFT - RIGHT) / n_columns
    high = (height - n_rows * (below + TOP)) / n_rows
    places = {
        "left": LEFT / width,
        "right": 1 - RIGHT / width,
        "bottom": below / height,
        "top": 1 - TOP / height,
        "wspace": LEFT / wide,
        "hspace": (below + TOP) / high,
    }
    return figure, figure.subplots(n_rows, n_columns, squeeze=False, gridspec_kw=places)


def bar_chart(
    axis: "Axes", names: Sequence[str], values: Sequence[float], counts: Sequence[int]
) -> None:
    """Draw vertical bars, the highest in another colour, with counts below their names.

    The labels of more than MAX_UPRIGHT_LABELS bars are rotated, so that they do not overlap.
    """
    highest = max(values, default=0.0)
    places = range(len(names))
    axis.bar(places, values, color=[ORANGE if value == highest else BLUE for value in values])
    is_crowded = len(names) > MAX_UPRIGHT_LABELS
    mark = "  ·  " if is_crowded else "\n"
    labels = [f"{name}{mark}{format_short_count(n)}" for name, n in zip(names, counts, strict=True)]
    axis.set_xticks(places, labels, rotation=90 if is_crowded else 0, fontsize="x-small")
    axis.grid(visible=False, axis="x")


MAX_UPRIGHT_LABELS = 8  # bars whose names fit side by side


def format_short_count(n: int) -> str:
    """Write a count in about four characters: 950, 12k, 3.4M."""
    # 999,500 rounds to a million
    for threshold, unit, letter in ((999_500, 1_000_000, "M"), (10_000, 1_000, "k")):
        if n >= threshold:
            return f"{n / unit:.3g}{letter}"
    return f"{n:,}"
