"""The picture of a backtest: errors by month, and what ageing costs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .backtest import CHOSEN, COMPARED_BASELINES, MonthErrors, RmseRise, fresh_errors
from .style import AMBER, BLUE, GREY, ORANGE, styled

LABELS = {CHOSEN: "the recipe, fresh", **COMPARED_BASELINES}
LOOKS = {CHOSEN: (BLUE, "-"), "mean": (GREY, ":"), "linear_regression": (AMBER, "--")}


@styled
def draw_backtest(rows: Sequence[MonthErrors], rises: Sequence[RmseRise], title: str) -> Figure:
    """Draw RMSE by month with intervals, bias by month, and the rise of RMSE by age.

    Args:
        rows: the table of the backtest.
        rises: by age; may be empty.
        title: the finding.
    """
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left", wrap=True)
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 2))
    _draw_months(figure.add_subplot(grid[0, :]), rows)
    _draw_bias(figure.add_subplot(grid[1, 0]), rows)
    _draw_ageing(figure.add_subplot(grid[1, 1]), rises)
    return figure


def _draw_months(axis: Axes, rows: Sequence[MonthErrors]) -> None:
    for model, (colour, dashes) in LOOKS.items():
        months = sorted(errors_by_month := fresh_errors(rows, model))
        if not months:
            continue
        values = np.array([errors_by_month[month].rmse for month in months])  # [m, value low high]
        axis.plot(months, values[:, 0], color=colour, linestyle=dashes, label=LABELS[model])
        axis.fill_between(months, values[:, 1], values[:, 2], color=colour, alpha=0.15, linewidth=0)
    axis.set(ylabel="RMSE, minutes", title="Errors of models fresh in their month")
    axis.legend(ncols=3, fontsize="small")
    axis.tick_params(axis="x", rotation=45 if len(fresh_errors(rows)) > 8 else 0)


def _draw_bias(axis: Axes, rows: Sequence[MonthErrors]) -> None:
    months = sorted(errors_by_month := fresh_errors(rows))
    values = np.array([errors_by_month[month].bias for month in months])
    axis.axhline(0, color=GREY, linewidth=0.8)
    around = np.abs(values[:, 1:] - values[:, :1]).T
    axis.errorbar(months, values[:, 0], around, color=BLUE, fmt="o", markersize=4)
    axis.set(ylabel="bias, minutes", title="Predicted less what trips took")
    axis.tick_params(axis="x", rotation=45 if len(months) > 4 else 0)


def _draw_ageing(axis: Axes, rises: Sequence[RmseRise]) -> None:
    axis.axhline(0, color=GREY, linewidth=0.8)
    for rise in rises:
        value, low, high = (100 * part for part in rise.share)
        if np.isfinite(low):
            axis.vlines(rise.age, low, high, color=ORANGE)
        axis.plot(rise.age, value, "o", color=ORANGE)
    axis.set_xticks([rise.age for rise in rises])
    axis.set(
        xlabel="age of the model, months",
        ylabel="RMSE above a fresh model's, %",
        title="What ageing costs" if rises else "No model was followed",
    )
