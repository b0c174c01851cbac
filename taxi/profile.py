"""Histograms of a set of trips, counted batch by batch in constant memory."""

from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .schema import N_ZONES, is_plausible_distance, zone_or_0
from .style import styled
from .words import HISTOGRAM_LABELS, WEEKDAYS

# what is counted: name -> bin edges; values beyond the ends count in the end bins
EDGES: Mapping[str, np.ndarray] = {
    "trip_minutes": np.arange(0.0, 61.0, 1.0),
    "distance_miles": np.concatenate(([-np.inf], np.arange(0.0, 30.5, 0.5), [np.inf])),
    "hour": np.arange(-0.5, 24.0),
    "weekday": np.arange(-0.5, 7.0),  # 0 = Monday
}
TRIP_ENDS = ("pickup_zone", "dropoff_zone")
HAS_DISTANCE = "has_distance"  # whether a trip has a clean distance: two bins, no and yes


class Profile:
    """Histograms of the trips added so far: the columns of EDGES, the zones, and their pairs.

    Profiles stored by older versions, which did not count HAS_DISTANCE, lack that histogram.
    """

    def __init__(self) -> None:
        self.n_trips = 0
        self.counts = {name: np.zeros(len(edges) - 1, int) for name, edges in EDGES.items()}
        self.counts |= {name: np.zeros(N_ZONES, int) for name in TRIP_ENDS}
        self.counts[HAS_DISTANCE] = np.zeros(2, int)
        self.pairs = np.zeros(N_ZONES * N_ZONES, int)  # pickup zone * N_ZONES + dropoff zone

    def add(self, trips: pa.RecordBatch) -> None:
        """Count a batch with the columns of schema.TRIPS."""
        self.n_trips += trips.num_rows
        columns = {
            "trip_minutes": pc.drop_null(trips.column("trip_minutes")),
            "distance_miles": pc.drop_null(trips.column("distance_miles")),
            "hour": pc.hour(trips.column("pickup_at")),
            "weekday": pc.day_of_week(trips.column("pickup_at")),
        }
        for name, values in columns.items():
            self.counts[name] += np.histogram(np.asarray(values), EDGES[name])[0]
        miles = np.asarray(trips.column("distance_miles"), float)  # NaN where missing
        self.counts[HAS_DISTANCE] += np.bincount(is_plausible_distance(miles), minlength=2)
        pickup, dropoff = (
            zone_or_0(np.asarray(trips.column(name))).astype(np.int64) for name in TRIP_ENDS
        )
        for name, zones in zip(TRIP_ENDS, (pickup, dropoff), strict=True):
            self.counts[name] += np.bincount(zones, minlength=N_ZONES)
        self.pairs += np.bincount(pickup * N_ZONES + dropoff, minlength=len(self.pairs))

    def shares(self, name: str) -> np.ndarray:
        """Return the share of the counted trips in each bin of a histogram, [b]."""
        counts = self.counts[name]
        return counts / max(counts.sum(), 1)

    def state(self) -> dict[str, Any]:
        """Return the profile as plain JSON values; `restore` rebuilds it."""
        pairs = np.flatnonzero(self.pairs)
        return {
            "n_trips": self.n_trips,
            "counts": {name: counts.tolist() for name, counts in self.counts.items()},
            "pairs": pairs.tolist(),
            "pair_trips": self.pairs[pairs].tolist(),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Profile":
        """Rebuild a profile from its `state`."""
        profile = cls()
        profile.n_trips = state["n_trips"]
        profile.counts = {name: np.array(counts) for name, counts in state["counts"].items()}
        profile.pairs[state["pairs"]] = state["pair_trips"]
        return profile


def join_profiles(parts: Iterable[Profile]) -> Profile:
    """Add profiles up; a histogram that any of them lacks is left out."""
    joined = Profile()
    for part in parts:
        joined.n_trips += part.n_trips
        common = [name for name in joined.counts if name in part.counts]
        joined.counts = {name: joined.counts[name] + part.counts[name] for name in common}
        joined.pairs += part.pairs
    return joined


@styled
def draw_profile(
    profiles: Mapping[str, Profile], dropped: Mapping[str, Mapping[str, int]]
) -> Figure:
    """Draw the splits' histograms over each other, and what was dropped from each month.

    Empty histograms are left out, such as that of distance for car services.

    Args:
        profiles: split -> its profile.
        dropped: month -> reason -> rows.
    """
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = iter(figure.subplots(3, 2).flat)
    drawn = [name for name in EDGES if any(one.counts[name].any() for one in profiles.values())]
    for name, axis in zip(drawn, axes, strict=False):
        edges = EDGES[name]
        inner = edges[np.isfinite(edges)]
        finite = np.clip(edges, inner[0] - 0.5, inner[-1] + 0.5)  # an end bin as wide as the others
        for (split, profile), dashes in zip(profiles.items(), cycle(("-", "--")), strict=False):
            label = f"{split}, {profile.n_trips:,} trips"
            axis.stairs(100 * profile.shares(name), finite, label=label, linestyle=dashes)
        axis.set(
            xlabel=HISTOGRAM_LABELS[name],
            ylabel="share of trips, %",
            title=_describe_peak(name, profiles),
        )
        axis.legend()
        if name == "weekday":
            axis.set_xticks(range(len(WEEKDAYS)), [day[:3] for day in WEEKDAYS])
    of_drops = next(axes)
    _draw_dropped(of_drops, dropped)
    legend = next(axes)
    legend.legend(*of_drops.get_legend_handles_labels(), loc="center left")
    for axis in (legend, *axes):
        axis.set_axis_off()
    return figure


def _describe_peak(name: str, profiles: Mapping[str, Profile]) -> str:
    """Say in which bin the first split has the most trips."""
    split, profile = next(iter(profiles.items()))
    if not profile.counts[name].any():  # other splits have some
        return f"No {split} trip has any"
    bin_index = int(profile.counts[name].argmax())
    low, high = EDGES[name][bin_index : bin_index + 2]
    if name == "weekday":
        peak = WEEKDAYS[bin_index]
    elif name == "hour":
        peak = f"{bin_index:02d}:00"
    else:
        peak = f"{max(low, 0):g} to {high:g} {'min' if name == 'trip_minutes' else 'miles'}"
    return f"Most {split} trips: {peak}"


def _draw_dropped(axis: Axes, dropped: Mapping[str, Mapping[str, int]]) -> None:
    reasons = next(iter(dropped.values()))
    left = np.zeros(len(dropped))
    sums = {reason: sum(counts[reason] for counts in dropped.values()) for reason in reasons}
    for reason, hatch in zip(reasons, cycle(("", "//", "..")), strict=False):
        rows = np.array([counts[reason] for counts in dropped.values()])
        bars = axis.barh(list(dropped), rows, left=left, label=f"{reason}: {sums[reason]:,}")
        for bar in bars:
            bar.set(hatch=hatch, edgecolor="white", linewidth=0)
        left += rows
    most_frequent = max(sums, key=sums.__getitem__)
    title = f"Dropped most often: {most_frequent}" if sums[most_frequent] else "No row was dropped"
    axis.set(xlabel="rows dropped", title=title)
    axis.grid(visible=False, axis="y")
