"""How far a month lies from the months a model was trained on.

The population stability index is what people who watch models read: below 0.1 nothing to see, above
0.25 another world. It is ten lines over histograms that are counted anyway, in memory that does not
grow. evidently, nannyml, alibi-detect and deepchecks have it too, but want both months whole in a
pandas frame and bring a platform of their own; scipy's Wasserstein distance knows no zones, whose
ids have no order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from .profile import EDGES, ENDS, Profile

# minutes; an end bin takes whatever lies beyond it
PREDICTION_EDGES = np.concatenate(([-np.inf], np.arange(1.0, 60.0), [np.inf]))
# a bin that few train trips fall in moves by chance: they are counted together
RARE = 0.01
FEATURES = ("distance_miles", "hour", "weekday", *ENDS)


class Reference(NamedTuple):
    """What a model knew when it was trained."""

    train: Profile
    predictions: np.ndarray  # of the valid trips, counted in PREDICTION_EDGES
    unseen_zones: float  # share of the valid trips with a zone that no train trip has
    unseen_pairs: float
    rmse: float  # minutes, on valid

    def state(self) -> dict[str, Any]:
        """Give all of it as plain JSON values; `restore` undoes it."""
        about = self._asdict()
        return about | {"train": self.train.state(), "predictions": self.predictions.tolist()}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Reference":
        """Rebuild it from what its `state` gave."""
        return cls(
            **dict(state)
            | {
                "train": Profile.restore(state["train"]),
                "predictions": np.array(state["predictions"]),
            }
        )


class DriftThresholds(NamedTuple):
    """From where on a month counts as drifted."""

    max_psi: float
    max_unseen: float  # share of trips above that of valid
    max_rmse_rise: float  # share above the RMSE on the months the model was judged by


class Measure(NamedTuple):
    """One comparison of a month with the reference."""

    measure: str
    of: str
    value: float
    threshold: float
    drifted: bool


def make_reference(train: Profile, valid: Profile, predicted: np.ndarray, rmse: float) -> Reference:
    """Note what a model looks like on the day it is trained.

    Args:
        train, valid: profiles of the trips it was fitted to and judged by.
        predicted: [n] minutes of the valid trips.
        rmse: on them, minutes.
    """
    zones, pairs = unseen(train, valid)
    return Reference(train, count_predictions(predicted), zones, pairs, rmse)


def count_predictions(predicted: np.ndarray) -> np.ndarray:
    """Count minutes in the bins of PREDICTION_EDGES."""
    return np.histogram(predicted, PREDICTION_EDGES)[0]


def measure_drift(
    reference: Reference,
    month: Profile,
    predictions: np.ndarray,
    *,
    rmse: float | None,
    rmse_before: float,
    thresholds: DriftThresholds,
) -> list[Measure]:
    """Measure how far a month is from what the model was trained on.

    Args:
        reference: what the model has stored.
        month: profile of the month's trips.
        predictions: their predicted minutes, counted in PREDICTION_EDGES.
        rmse: on the month, where the drop-offs are known.
        rmse_before: on the months the model was judged by.
    """
    found = [
        _measure("PSI", name, psi(reference.train.counts[name], month.counts[name]), thresholds[0])
        for name in FEATURES
    ]
    moved = psi(reference.predictions, predictions)
    found.append(_measure("PSI", "prediction", moved, thresholds.max_psi))
    before = (reference.unseen_zones, reference.unseen_pairs)
    names = ("zone", "pair of zones")
    for name, now, then in zip(names, unseen(reference.train, month), before, strict=True):
        found.append(_measure("unseen above valid", name, now - then, thresholds.max_unseen))
    if rmse is not None:
        rise = rmse / rmse_before - 1
        found.append(_measure("rise", "RMSE", rise, thresholds.max_rmse_rise))
    return found


def psi(expected: np.ndarray, found: np.ndarray) -> float:
    """Population stability index between two histograms of the same bins.

    Source: Siddiqi, Credit Risk Scorecards, 2006.
    """
    rare = expected < RARE * expected.sum()
    shares = []
    for counts in (expected, found):
        pooled = np.append(counts[~rare], counts[rare].sum()) + 0.5  # no bin is empty
        shares.append(pooled / pooled.sum())
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def unseen(train: Profile, month: Profile) -> tuple[float, float]:
    """Give the share of trips with a zone, and with a pair of zones, that no train trip has."""
    pairs = month.pairs.reshape(len(month.counts["pickup_zone"]), -1)
    strange = [train.counts[name] == 0 for name in ENDS]
    with_zone = pairs[strange[0][:, None] | strange[1][None, :]].sum()
    with_pair = month.pairs[train.pairs == 0].sum()
    n_trips = max(month.n_trips, 1)
    return float(with_zone / n_trips), float(with_pair / n_trips)


def draw_drift(
    reference: Reference,
    months: Mapping[str, tuple[Profile, np.ndarray]],
    measures: Mapping[str, Sequence[Measure]],
) -> Figure:
    """Draw each month's histograms over those of the train months, and the measures.

    Args:
        reference: what the model has stored.
        months: month -> its profile and its predictions, counted in PREDICTION_EDGES.
        measures: month -> what `measure_drift` gave.
    """
    figure = Figure(figsize=(12, 10), layout="constrained")
    axes = figure.subplots(3, 2).flat
    edges = {name: EDGES[name] for name in ("distance_miles", "hour", "weekday")}
    for axis, (name, bins) in zip(axes, edges.items(), strict=False):
        counts = {"train": reference.train.counts[name]}
        counts |= {month: profile.counts[name] for month, (profile, _) in months.items()}
        _draw_counts(axis, name, bins, counts)
    counts = {"valid": reference.predictions}
    counts |= {month: predictions for month, (_, predictions) in months.items()}
    _draw_counts(figure.axes[3], "prediction, min", PREDICTION_EDGES, counts)
    for axis, wanted in ((figure.axes[4], "PSI"), (figure.axes[5], "")):
        _draw_measures(axis, wanted, measures)
    return figure


def _draw_counts(axis: Any, name: str, edges: np.ndarray, counts: Mapping[str, np.ndarray]) -> None:
    inner = edges[np.isfinite(edges)]
    width = inner[1] - inner[0]
    finite = np.clip(edges, inner[0] - width, inner[-1] + width)  # end bins as wide as the others
    for label, found in counts.items():
        axis.stairs(found / max(found.sum(), 1), finite, label=label)
    axis.set(xlabel=name, ylabel="share of trips")
    axis.legend(fontsize="small")


def _draw_measures(axis: Any, wanted: str, measures: Mapping[str, Sequence[Measure]]) -> None:
    for place, (month, found) in enumerate(measures.items(), start=1):
        shown = [m for m in found if (m.measure == "PSI") == bool(wanted)]
        # a threshold of 0 asks for no rise at all; the picture needs a scale all the same
        sizes = [m.value / m.threshold if m.threshold else m.value for m in shown]
        names = [f"{m.measure}, {m.of}" for m in shown]
        axis.plot(sizes, names, f"C{place}o", label=month)  # the month's colour above, C0 is train
    axis.axvline(1.0, color="grey", linewidth=0.8)
    axis.set(xlabel="value / threshold", title="beyond the line: drift")


def _measure(measure: str, of: str, value: float, threshold: float) -> Measure:
    return Measure(measure, of, value, threshold, value > threshold)
