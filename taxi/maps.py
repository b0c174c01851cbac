"""Maps of the city: a value for each zone, and the picture of it."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from .city import City
from .schema import N_ZONES, Trips, zone_or_0
from .style import styled
from .words import MIN_GROUP_TRIPS

# legible to colour-blind readers and in print: dark is much; red is above the middle, blue below
COLOURS, TWO_SIDED_COLOURS = "viridis_r", "RdBu_r"
NO_VALUE_COLOUR, BORDER_COLOUR = "#d9d9d9", "#ffffff"
END_PERCENTILES = (1, 99)  # of the values, so that an outlier does not leave the rest one colour


def mean_by_zone(zone: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Average values by zone, float64 [N_ZONES]; NaN where a zone has none.

    Args:
        zone: TLC ids [n]; those that the TLC does not have count as zone 0.
        values: [n], NaN ones do not count.
    """
    has_value = ~np.isnan(values)
    zone, values = zone_or_0(zone)[has_value], values[has_value]
    count = np.bincount(zone, minlength=N_ZONES)
    total = np.bincount(zone, values, minlength=N_ZONES)
    return np.divide(total, count, out=np.full(N_ZONES, np.nan), where=count > 0)


@styled
def draw_zone_map(
    city: City,
    values: np.ndarray,
    *,
    title: str,
    label: str,
    is_log: bool = False,
    middle: float | None = None,
    grey_label: str = "no trips",
) -> Figure:
    """Draw a value for each zone on the map of the city.

    Args:
        city: whose zones are drawn; water is left blank.
        values: [N_ZONES]; zones without one, NaN, are grey.
        title: of the map, for anybody.
        label: what the values are, with their unit.
        is_log: colours are on a log scale; values below 1 are grey.
        middle: if given, colours tell values above it from those below.
        grey_label: legend of the zones without a value.
    """
    figure = Figure(figsize=(9, 8), layout="constrained")
    axis = figure.subplots()
    values = np.where(values >= 1, values, np.nan) if is_log else values
    drawn = [zone for zone in range(N_ZONES) for _ in city.outline[zone]]
    shapes = PolyCollection(
        [ring for rings in city.outline for ring in rings],
        array=np.ma.masked_invalid(values[drawn]),
        cmap=colormaps[COLOURS if middle is None else TWO_SIDED_COLOURS].with_extremes(
            bad=NO_VALUE_COLOUR
        ),
        norm=_norm(values[np.unique(drawn)], is_log=is_log, middle=middle),
        edgecolor=BORDER_COLOUR,
        linewidth=0.3,
    )
    axis.add_collection(shapes)
    scale = figure.colorbar(shapes, ax=axis, label=label, shrink=0.6, pad=0.01, extend="both")
    if is_log:
        scale.ax.yaxis.set_major_formatter("{x:,.0f}")
    if np.isnan(values[drawn]).any():
        handles = [Patch(color=NO_VALUE_COLOUR, label=grey_label)]
        axis.legend(handles=handles, loc="upper left")
    axis.set_title(title, fontsize="large")
    _name_boroughs(axis, city)
    _frame(axis)
    return figure


def draw_pickups(city: City, counts: np.ndarray) -> Figure:
    """Draw how many train trips begin in each zone.

    Args:
        city: whose zones are drawn.
        counts: trips that begin in each zone [N_ZONES].
    """
    counts_on_map = np.where(city.has_place, counts, 0)
    title, busiest = f"Where the {counts.sum():,} train trips start", int(counts_on_map.argmax())
    if counts_on_map[busiest]:
        title += f": most in {city.name_zone(busiest)}, {counts_on_map[busiest]:,}"
    return draw_zone_map(
        city,
        np.where(city.has_place, counts, np.nan),
        title=title,
        label="trips by pickup zone",
        is_log=True,
    )


def draw_errors(city: City, trips: Trips, predicted: np.ndarray) -> Figure:
    """Draw the RMSE of the trips that begin in each zone.

    Args:
        city: whose zones are drawn.
        trips: n trips with their minutes.
        predicted: [n] minutes.
    """
    rmse = np.sqrt(mean_by_zone(trips.pickup_zone, (predicted - trips.trip_minutes) ** 2))
    count = np.bincount(zone_or_0(trips.pickup_zone), minlength=N_ZONES)
    reliable = np.where((count >= MIN_GROUP_TRIPS) & city.has_place, rmse, np.nan)
    title, grey_label = "How far off it is, by where the trip begins", "no trips"
    if not np.isnan(reliable).all():
        # by chance, zones of few trips would have the strongest colours
        rmse, grey_label = reliable, f"fewer than {MIN_GROUP_TRIPS} trips"
        worst = int(np.nanargmax(reliable))
        title += f": most in {city.name_zone(worst)}, {reliable[worst]:.1f} min"
    return draw_zone_map(
        city,
        rmse,
        title=title,
        label="RMSE, min",
        grey_label=grey_label,
    )


def draw_pickup_shift(city: City, before: np.ndarray, now: np.ndarray) -> Figure:
    """Draw how the share of trips that begin in each zone has changed.

    Args:
        city: whose zones are drawn.
        before, now: trips that begin in each zone, counts [N_ZONES].
    """
    shares = [100 * count / max(count.sum(), 1) for count in (before, now)]
    points = np.where(city.has_place & (before + now > 0), shares[1] - shares[0], np.nan)
    title = "Where trips begin, against the fitted trips"
    if not np.isnan(points).all():
        extremes = int(np.nanargmax(points)), int(np.nanargmin(points))
        changes = [f"{points[zone]:+.1f} points in {city.name_zone(zone)}" for zone in extremes]
        title += ":\n" + ",\n".join(changes)  # a line each: names of zones are long
    label = "share of the trips, percentage points more"
    return draw_zone_map(city, points, title=title, label=label, middle=0.0)


def _name_boroughs(axis: Axes, city: City) -> None:
    halo = [withStroke(linewidth=3, foreground=BORDER_COLOUR)]
    for name in np.unique(city.borough[city.has_place & (city.borough != "")]):
        east, north = city.centroid[city.has_place & (city.borough == name)].mean(axis=0)
        axis.text(east, north, name, ha="center", va="center", path_effects=halo, weight="bold")


def _norm(values: np.ndarray, *, is_log: bool, middle: float | None) -> Normalize:
    """Choose the values that get the end colours."""
    finite = values[~np.isnan(values)]
    low, high = np.percentile(finite, END_PERCENTILES) if len(finite) else (0.0, 1.0)
    if middle is not None:
        half_range = max(abs(high - middle), abs(low - middle)) or 1.0
        return TwoSlopeNorm(middle, middle - half_range, middle + half_range)
    if is_log:
        return LogNorm(max(low, 1.0), max(high, low * 1.01, 1.01))
    return Normalize(low, high if high > low else low + 1.0)


def _frame(axis: Axes) -> None:
    axis.autoscale_view()
    axis.set_aspect("equal")
    axis.set_axis_off()
