"""Evaluation of predictions: errors by group, pictures, feature importance."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .features import FEATURES
from .groups import NO_DISTANCE, by_busyness, by_distance, by_hour
from .schema import Trips
from .scores import CLOSE_MINUTES, rmse
from .style import BLUE, GREY, bar_chart, new_figure, new_grid, styled
from .words import format_group, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xgboost import Booster, DMatrix

N_CALIBRATION_BINS = 20
# not imported from spaces.py: an edit of a search space would then change the key of `baseline`
POISSON_LOSS = "count:poisson"
N_SHAP_ROWS = 300  # rows to explain: exact values for trees of unbounded depth take 16 ms a row


class GroupErrors(NamedTuple):
    """The errors on a group of trips, such as those of an hour."""

    kind: str
    group: str
    n_trips: int
    rmse: float  # minutes
    mae: float  # minutes
    bias: float  # mean of predicted - measured, minutes


def errors_by_group(trips: Trips, predicted: np.ndarray) -> list[GroupErrors]:
    """Break the errors down by hour, by distance and by how busy the pickup zone is.

    Args:
        trips: n trips with their minutes.
        predicted: [n] minutes.
    Returns:
        The groups of each kind in their order; each trip is in one group of each kind.
    """
    groupings = {
        "hour": by_hour(trips),
        "distance": by_distance(trips),
        "pickup zone": by_busyness(trips),
    }
    error = predicted - trips.trip_minutes
    return [
        _group(kind, name, error[rows])
        for kind, grouping in groupings.items()
        for name, rows in grouping.parts()
    ]


def _group(kind: str, name: str, error: np.ndarray) -> GroupErrors:
    mae, bias = float(np.abs(error).mean()), float(error.mean())
    return GroupErrors(kind, name, len(error), rmse(error), mae, bias)


@styled
def draw_evaluation(trips: Trips, predicted: np.ndarray, groups: Sequence[GroupErrors]) -> "Figure":
    """Draw residuals, calibration and the errors by hour and distance.

    If no trip has a distance, how busy the pickup zone is takes its place.

    Args:
        trips: n trips with their minutes.
        predicted: [n] minutes.
        groups: by `errors_by_group`, for these predictions.
    """
    minutes = trips.trip_minutes
    error = predicted - minutes
    figure, ((residual, calibration), (hour, where)) = new_grid(12, 8, 2, 2, below=0.9)
    figure.suptitle(f"Off by {rmse(error):.2f} min (RMSE) on {len(error):,} trips", y=0.995)
    # one outline: 120 separate bars take half as long to draw as all the rest
    residual.stairs(*np.histogram(np.clip(error, -30, 30), bins=120), fill=True)
    near = float((np.abs(error) <= CLOSE_MINUTES).mean())
    residual.set(
        xlabel="predicted - measured, min",
        ylabel="trips",
        title=f"{percent(near, 0)} of the trips are predicted within {CLOSE_MINUTES:g} minutes",
    )
    _draw_calibration(calibration, minutes, predicted)
    has_distance = any(one.kind == "distance" and one.group != NO_DISTANCE for one in groups)
    for axis, kind in ((hour, "hour"), (where, "distance" if has_distance else "pickup zone")):
        _draw_groups(axis, kind, [group for group in groups if group.kind == kind])
    return figure


def _draw_groups(axis: "Axes", kind: str, groups: Sequence[GroupErrors]) -> None:
    names = [format_group(kind, group.group) for group in groups]
    rmses = [group.rmse for group in groups]
    bar_chart(axis, names, rmses, [group.n_trips for group in groups])
    axis.margins(x=0.02)
    worst = max(range(len(groups)), key=rmses.__getitem__)
    axis.set(
        xlabel=f"{kind} · trips",
        ylabel="RMSE, min",
        title=f"By {kind}: most off at {names[worst]}, {rmses[worst]:.1f} min",
    )


def calibration_bins(predicted: np.ndarray) -> list[np.ndarray]:
    """Group the rows of predictions [n] into bins of about equal size, ascending.

    Equal predictions share a bin: splitting them would be arbitrary.
    """
    order = np.argsort(predicted, kind="stable")
    firsts = [predicted[rows[0]] for rows in np.array_split(order, N_CALIBRATION_BINS) if len(rows)]
    starts = np.searchsorted(predicted[order], firsts)
    return [rows for rows in np.split(order, starts) if len(rows)]


def _draw_calibration(axis: "Axes", minutes: np.ndarray, predicted: np.ndarray) -> None:
    bins = calibration_bins(predicted)
    mean_predicted, mean_measured = (
        [float(values[b].mean()) for b in bins] for values in (predicted, minutes)
    )
    axis.plot([0, 60], [0, 60], color=GREY, linestyle="--", linewidth=0.8)
    axis.plot(mean_predicted, mean_measured, "o-", color=BLUE)
    max_gap = max(abs(a - b) for a, b in zip(mean_predicted, mean_measured, strict=True))
    axis.set(
        xlabel="mean predicted, min",
        ylabel="mean measured, min",
        title=f"Predicted means are within {max_gap:.1f} min of the measured ones",
    )


def describe_feature(name: str) -> str:
    """Describe a feature: its docstring up to the semicolon, which is written for reports.

    Args:
        name: key of FEATURES; any other, such as a pair of zones, is returned as it is.
    """
    docstring = FEATURES[name].__doc__ if name in FEATURES else None
    if not docstring:
        return name
    first = docstring.splitlines()[0].partition(";")[0].rstrip(".")
    return first[0].lower() + first[1:]


def feature_importance(
    booster: "Booster", matrix: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Measure how much each feature matters to a booster.

    Args:
        booster: xgboost's.
        matrix: float32 [n, k], rows to explain.
        names: of the k features.
    Returns:
        feature -> gain (mean loss reduction of its splits) and shap (mean absolute SHAP value,
        minutes), most important first.
    Source: Lundberg et al., Consistent individualized feature attribution, 2018 (TreeSHAP).
    """
    from xgboost import DMatrix  # takes seconds to import, and `main` only reads errors

    rows = DMatrix(matrix)
    shap = np.abs(shap_minutes(booster, rows)).mean(axis=0).round(6)
    gain = booster.get_score(importance_type="gain")  # unnamed columns are f0, f1, ...
    importance = {
        name: {"gain": np.asarray(gain.get(f"f{index}", 0.0)).item(), "shap": float(shap[index])}
        for index, name in enumerate(names)
    }
    return dict(sorted(importance.items(), key=lambda item: -item[1]["shap"]))


def shap_minutes(booster: "Booster", rows: "DMatrix") -> np.ndarray:
    """Compute by how many minutes each feature's SHAP value moves each prediction.

    SHAP values add up to the minutes, but for count:poisson to their logarithm; there the move is
    the prediction minus what it would be without the value.

    Returns:
        float64 [n, k] for n rows and k features.
    """
    values = booster.predict(rows, pred_contribs=True)[:, :-1].astype(np.float64)
    learner = json.loads(booster.save_config())["learner"]
    if learner["objective"]["name"] != POISSON_LOSS:
        return values
    return np.asarray(booster.predict(rows)[:, None] * (1 - np.exp(-values)))


@styled
def draw_feature_importance(importance: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Draw the mean absolute SHAP value of each feature, most important on top.

    Args:
        importance: by `feature_importance`.
    """
    figure = new_figure(10, 0.3 * len(importance) + 1.2)
    axis = figure.subplots()
    names = list(importance)[::-1]
    bars = axis.barh(names, [importance[name]["shap"] for name in names], color=BLUE)
    axis.bar_label(bars, fmt="%.2f", padding=3, fontsize="small")
    axis.set_yticks(range(len(names)), [describe_feature(name) for name in names], fontsize="small")
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("mean move of a prediction, min (absolute SHAP value)")
    figure.suptitle(f"The model looks most at: {describe_feature(names[-1])}")
    return figure
