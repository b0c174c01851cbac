"""What a set of trips looks like, counted batch by batch in memory that does not grow."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# what is counted: name -> bin edges; values beyond the ends count in the end bins
EDGES: Mapping[str, np.ndarray] = {
    "trip_minutes": np.arange(0.0, 61.0, 1.0),
    "distance_miles": np.concatenate(([-np.inf], np.arange(0.0, 30.5, 0.5), [np.inf])),
    "hour": np.arange(-0.5, 24.0),
    "weekday": np.arange(-0.5, 7.0),  # 0 = Monday
}


class Profile:
    """Histograms of the trips added so far; see EDGES for what is counted."""

    def __init__(self) -> None:
        self.n_trips = 0
        self.counts = {name: np.zeros(len(edges) - 1, int) for name, edges in EDGES.items()}

    def add(self, trips: pa.RecordBatch) -> None:
        """Count a batch with the columns of schema.TRIPS."""
        self.n_trips += trips.num_rows
        columns = {
            "trip_minutes": trips.column("trip_minutes"),
            "distance_miles": pc.drop_null(trips.column("distance_miles")),
            "hour": pc.hour(trips.column("pickup_at")),
            "weekday": pc.day_of_week(trips.column("pickup_at")),
        }
        for name, values in columns.items():
            self.counts[name] += np.histogram(np.asarray(values), EDGES[name])[0]

    def shares(self, name: str) -> np.ndarray:
        """Share of the counted trips in each bin."""
        counts = self.counts[name]
        return counts / max(counts.sum(), 1)


def draw(profiles: Mapping[str, Profile], dropped: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw the splits' histograms over each other, and what was dropped from each month.

    Args:
        profiles: split -> its profile.
        dropped: month -> reason -> rows.
    """
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(3, 2).flat
    for axis, (name, edges) in zip(axes, EDGES.items(), strict=False):
        inner = edges[np.isfinite(edges)]
        finite = np.clip(edges, inner[0] - 0.5, inner[-1] + 0.5)  # an end bin as wide as the others
        for split, profile in profiles.items():
            axis.stairs(profile.shares(name), finite, label=split)
        axis.set(xlabel=name, ylabel="share of trips")
        axis.legend()
    _draw_dropped(figure.axes[4], dropped)
    figure.axes[5].legend(*figure.axes[4].get_legend_handles_labels(), loc="center left")
    figure.axes[5].set_axis_off()
    return figure


def _draw_dropped(axis: Axes, dropped: Mapping[str, Mapping[str, int]]) -> None:
    reasons = next(iter(dropped.values()))
    left = np.zeros(len(dropped))
    for reason in reasons:
        rows = np.array([counts[reason] for counts in dropped.values()])
        axis.barh(list(dropped), rows, left=left, label=reason)
        left += rows
    axis.set(xlabel="rows dropped")
