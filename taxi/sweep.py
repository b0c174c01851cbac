"""Compare the points of a sweep: a table, a picture, and which is best on valid."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from .style import BLUE, GREY, ORANGE, styled

ROW_INCHES, MIN_INCHES = 0.28, 2.0  # height of the picture


class SweptPoint(NamedTuple):
    """A pipeline at one point of a sweep, and its result on valid."""

    values: Mapping[str, str]  # of the parameters that differ between points
    rmse: float  # of its best candidate, minutes, with the distance that candidates are chosen by
    model: str
    searched_rmse: float | None  # of the search's model; None without a search
    noise: float | None  # effect of another seed, minutes; None if not measured
    trips: str  # identifies the validation trips: errors on other trips are not comparable
    run_id: str

    @property
    def name(self) -> str:
        """Name it by its values: max_evals=20, half_life=4."""
        return name_point(self.values)


def name_point(values: Mapping[str, str]) -> str:
    """Name a point by its values."""
    return ", ".join(f"{name}={text or 'none'}" for name, text in values.items())


def parameter_grid(
    lists: Mapping[str, Sequence[str]], points: Sequence[Mapping[str, str]] = ()
) -> list[dict[str, str]]:
    """Return the Cartesian product of the lists, at each of the points."""
    cells = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    return [{**point, **cell} for point in (points or [{}]) for cell in cells]


def rank_points(points: Sequence[SweptPoint]) -> list[SweptPoint]:
    """Sort points by trips, then RMSE; if one baseline wins at several, by the search's RMSE."""
    return sorted(points, key=lambda one: (one.trips, one.rmse, one.searched_rmse or 0.0))


def best_points(points: Sequence[SweptPoint]) -> list[SweptPoint]:
    """Return the best point for each set of validation trips; a single one if all share a set."""
    best: dict[str, SweptPoint] = {}
    for point in rank_points(points):
        best.setdefault(point.trips, point)
    return list(best.values())


def sweep_table(points: Sequence[SweptPoint]) -> list[dict[str, Any]]:
    """Return a row for each point, best first; points may set different parameters."""
    best = best_points(points)
    stated = dict.fromkeys(name for point in points for name in point.values)
    return [
        {
            **{name: point.values.get(name, "") for name in stated},
            "rmse": point.rmse,
            "model": point.model,
            "searched_rmse": "" if point.searched_rmse is None else point.searched_rmse,
            "best": point in best,
            "run_id": point.run_id,
        }
        for point in rank_points(points)
    ]


@styled
def draw_sweep(points: Sequence[SweptPoint], title: str) -> Figure:
    """Draw each point's RMSE on valid, best on top, and the search's where a baseline won."""
    ranked, best = rank_points(points), best_points(points)
    rows = range(len(ranked))
    height = max(MIN_INCHES, 1.4 + ROW_INCHES * len(ranked))
    figure = Figure(figsize=(8, height), layout="constrained")
    axis = figure.add_subplot()
    note = ""
    for row, point in zip(rows, ranked, strict=True):
        if point.searched_rmse is not None and point.searched_rmse != point.rmse:
            axis.plot(point.searched_rmse, row, "o", color=GREY, markerfacecolor="none")
            note = "; open: of the search, where a baseline won"
        axis.plot(point.rmse, row, "o", color=ORANGE if point in best else BLUE)
    axis.set_yticks(rows, [point.name for point in ranked], fontsize="small")
    axis.set_ylim(len(ranked) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel(f"RMSE on valid, minutes{note}")
    figure.suptitle(title.replace(": ", ":\n"), x=0.01, ha="left", fontsize="medium")
    return figure
