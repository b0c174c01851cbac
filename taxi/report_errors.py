"""The charts of a report on where a model fails, and how well its intervals are calibrated."""

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np

from .breakdown import RESIDUAL_EDGES, Breakdown
from .city import City
from .coverage import ALL_TRIPS, ALL_WITHOUT_DISTANCE, NOMINAL_COVERAGE
from .evaluation import GroupErrors
from .groups import NO_DISTANCE
from .page import Chart, paragraph
from .report_search import CsvRows
from .scores import CLOSE_MINUTES
from .words import (
    MIN_GROUP_TRIPS,
    WEEKDAYS,
    enough_trips_note,
    format_group,
    groups_with_enough_trips,
    percent,
    weekday_of,
)

RMSE, N_TRIPS = "RMSE, min", "trips"


def error_parts(
    trips_label: str, groups: Sequence[GroupErrors], breakdown: Breakdown | None, city: City | None
) -> list[str | Chart]:
    """Show the errors by hour, distance, weekday, day and on the map.

    Args:
        trips_label: which trips, and with which distance.
        groups: by hour, distance and how busy the pickup zone is.
        breakdown: by day and zone; None for a run by an older version.
        city: whose zones are drawn.
    """
    groups_by_kind = {
        kind: [one for one in groups if one.kind == kind] for kind in ("hour", "distance")
    }
    charts: list[str | Chart] = [
        group_chart(kind, same_kind)
        for kind, same_kind in groups_by_kind.items()
        if {one.group for one in same_kind} - {NO_DISTANCE}
    ]
    if breakdown:
        charts.append(group_chart("weekday", by_weekday(breakdown.days)))
        charts.append(group_chart("day", breakdown.days))
        charts.append(residual_chart(breakdown))
    shown = ['<div class="charts">', *charts, "</div>"] if charts else []
    if breakdown and city:
        shown.append(zone_chart(city, breakdown.zones))
    return [paragraph(f"Errors on {trips_label}."), *shown] if shown else []


def by_weekday(days: Sequence[GroupErrors]) -> list[GroupErrors]:
    """Merge the groups of days into those of weekdays, Monday first."""
    weekdays = []
    for weekday in WEEKDAYS:
        same_weekday = [day for day in days if weekday_of(day.group) == weekday]
        if not same_weekday:
            continue
        counts = [day.n_trips for day in same_weekday]
        parts = [(day.rmse**2, day.mae, day.bias) for day in same_weekday]
        square, mae, bias = map(float, np.average(parts, axis=0, weights=counts))
        weekdays.append(GroupErrors("weekday", weekday, sum(counts), sqrt(square), mae, bias))
    return weekdays


def group_chart(kind: str, groups: Sequence[GroupErrors]) -> Chart:
    """Draw the RMSE of groups, with their counts."""
    counts = [group.n_trips for group in groups]
    enough = [groups[index] for index in groups_with_enough_trips(counts)]
    worst, best = (pick(enough, key=lambda group: group.rmse) for pick in (max, min))
    worst_name, best_name = (format_group(kind, group.group) for group in (worst, best))
    title = (
        f"By {kind}{enough_trips_note(counts)}: largest error {worst_name} ({worst.rmse:.2f} min)"
    )
    return Chart(
        "bars",
        f"{title}." if worst is best else f"{title}, smallest {best_name} ({best.rmse:.2f} min).",
        {
            kind: [format_group(kind, group.group) for group in groups],
            RMSE: [round(group.rmse, 3) for group in groups],
            "bias, min": [round(group.bias, 3) for group in groups],
            N_TRIPS: counts,
        },
        best=worst_name,
    )


def residual_chart(breakdown: Breakdown) -> Chart:
    """Draw the distribution of the residuals."""
    counts = np.array(breakdown.residuals)
    middle = (RESIDUAL_EDGES[:-1] + RESIDUAL_EDGES[1:]) / 2
    near = float(counts[np.abs(middle) < CLOSE_MINUTES].sum() / max(counts.sum(), 1))
    return Chart(
        "bars",
        f"{percent(near, 0)} of the trips are predicted within {CLOSE_MINUTES:g} minutes.",
        {
            "predicted - measured, min (middle of 2)": [
                f"{at:+.0f}" for at in RESIDUAL_EDGES[1::2]
            ],
            N_TRIPS: counts.reshape(-1, 2).sum(axis=1).tolist(),
        },
    )


def zone_chart(city: City, zones: Sequence[GroupErrors]) -> Chart:
    """Draw the RMSE of the trips that begin in each zone on the map.

    Zones of few trips have no colour: by chance they would have the strongest. Zones that are not
    on the map, such as the unknown ones, are in the table only.
    """
    numbers = [int(group.group) for group in zones]
    named = [city.name_zone(zone) for zone in numbers]
    enough = [
        index
        for index, group in enumerate(zones)
        if group.n_trips >= MIN_GROUP_TRIPS and city.has_place[numbers[index]]
    ]
    rows = {numbers[index]: index for index in enough or range(len(zones))}
    worst = max(enough, key=lambda index: zones[index].rmse, default=None)
    finding = (
        ""
        if worst is None
        else f": largest error from {named[worst]} ({zones[worst].rmse:.2f} min)"
    )
    return Chart(
        "map",
        f"By the zone where a trip begins{finding}.",
        {
            "zone": named,
            RMSE: [round(group.rmse, 3) for group in zones],
            "borough": [str(city.borough[zone]) for zone in numbers],
            N_TRIPS: [group.n_trips for group in zones],
        },
        shapes=[
            [rows.get(zone, -1), ring[:, 0].round(2).tolist(), ring[:, 1].round(2).tolist()]
            for zone, rings in enumerate(city.outline)
            for ring in rings
        ],
        marks=[
            [*city.centroid[city.has_place & (city.borough == name)].mean(axis=0).tolist(), name]
            for name in np.unique(city.borough[city.has_place & (city.borough != "")]).tolist()
        ],
        blank=f"fewer than {MIN_GROUP_TRIPS} trips" if enough else "no trips",
    )


def calibration_chart(breakdown: Breakdown) -> Chart:
    """Draw the mean measured minutes over the mean predicted ones."""
    bins = breakdown.calibration
    worst = max(bins, key=lambda one: abs(one.measured - one.predicted))
    longest = max(max(one.predicted, one.measured) for one in bins)
    return Chart(
        "lines",
        f"Predicted means are within {abs(worst.measured - worst.predicted):.2f} min of the "
        f"measured ones (largest gap at {worst.predicted:.0f} min).",
        {
            "mean predicted, min": [round(one.predicted, 3) for one in bins],
            "mean measured, min": [round(one.measured, 3) for one in bins],
            N_TRIPS: [one.n_trips for one in bins],
        },
        wanted=[[0.0, 0.0], [longest, longest]],
    )


def interval_parts(coverage: CsvRows) -> list[str | Chart]:
    """Show how many test trips the interval from p10 to p90 holds, by group.

    Args:
        coverage: rows of coverage.csv; empty if the model gives no quantiles.
    """
    if not coverage:
        return [paragraph("The model gives no quantiles, or there are no test months.")]
    all_trips = next(row for row in coverage if row["kind"] == ALL_TRIPS)
    share, width = float(all_trips["coverage"]), float(all_trips["width"])
    summary = (
        f"p10 to p90 should cover {percent(NOMINAL_COVERAGE, 0)} of the trips. On test it covers "
        f"{percent(share)}, and is {width:.1f} min wide on average."
    )
    rows_by_kind = {
        kind: [row for row in coverage if row["kind"] == kind] for kind in ("distance", "hour")
    }
    parts = [
        interval_chart(kind, rows)
        for kind, rows in rows_by_kind.items()
        # if no trip has a distance, both bands hold all trips
        if {row["group"] for row in rows} - {NO_DISTANCE, ALL_WITHOUT_DISTANCE}
    ]
    return [paragraph(summary), '<div class="charts">', *parts, "</div>"]


def interval_chart(kind: str, rows: Sequence[Mapping[str, str]]) -> Chart:
    """Draw the share of trips within their intervals by group."""
    names = [format_group(kind, row["group"]) for row in rows]
    share = [round(100 * float(row["coverage"]), 1) for row in rows]
    counts = [int(row["n_trips"]) for row in rows]
    lowest = min(groups_with_enough_trips(counts), key=share.__getitem__)
    return Chart(
        "bars",
        f"By {kind}{enough_trips_note(counts)}, intervals cover least at {names[lowest]}: "
        f"{share[lowest]:.0f} %.",
        {
            kind: names,
            "trips within p10 to p90, %": share,
            "mean width, min": [round(float(row["width"]), 2) for row in rows],
            N_TRIPS: counts,
        },
        best=names[lowest],
        wanted=[[0.0, 100 * NOMINAL_COVERAGE], [1.0, 100 * NOMINAL_COVERAGE]],
    )
