"""Values by zone, and their maps."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from taxi import maps, simulation
from taxi.maps import draw_zone_map, mean_by_zone
from taxi.schema import N_ZONES
from taxi.words import MIN_GROUP_TRIPS
from tests.conftest import random_trips

CITY = simulation.simulated_zones(42)


def drawn(**options: object) -> PolyCollection:
    values = np.where(CITY.has_place, np.arange(N_ZONES, dtype=float), np.nan)
    values[7] = np.nan
    figure = draw_zone_map(CITY, values, title="Trips", label="trips", **options)
    figure.draw_without_rendering()
    return figure.axes[0].collections[0]


def test_values_are_averaged_by_zone_and_missing_ones_do_not_count() -> None:
    mean = mean_by_zone(np.array([3, 3, 5, 9, 900]), np.array([1.0, 2.0, 4.0, np.nan, 8.0]))
    assert mean.shape == (N_ZONES,)
    assert (mean[3], mean[5], mean[0]) == (1.5, 4.0, 8.0)
    assert np.isnan(np.delete(mean, [0, 3, 5])).all()


@pytest.mark.parametrize("options", [{}, {"is_log": True}, {"middle": 100.0}])
def test_every_zone_is_drawn_and_one_without_a_value_is_grey(options: dict[str, object]) -> None:
    shapes = drawn(**options)
    assert len(shapes.get_paths()) == 263
    colours = shapes.get_facecolor()[:, :3]
    is_grey = np.isclose(colours, to_rgb(maps.NO_VALUE_COLOUR)).all(axis=1)
    assert np.flatnonzero(is_grey).tolist() == [6]  # zone 7, the first being zone 1
    assert len(np.unique(colours, axis=0)) > 100


@pytest.mark.parametrize("value", [np.nan, 3.0, 0.0])
@pytest.mark.parametrize("options", [{}, {"is_log": True}, {"middle": 0.0}])
def test_a_map_of_nothing_or_of_one_value_is_drawn(value: float, options: dict) -> None:
    figure = draw_zone_map(CITY, np.full(N_ZONES, value), title="x", label="y", **options)
    figure.draw_without_rendering()
    assert figure.axes[0].get_title("left") == "x"
    assert figure.axes[0].get_aspect() == 1


def test_the_map_of_what_moved_names_the_zones_that_gained_and_lost_most() -> None:
    before, now = np.zeros(N_ZONES, int), np.zeros(N_ZONES, int)
    before[[3, 4, 5]], now[[3, 4, 5]] = (50, 30, 20), (8, 5, 7)
    figure = maps.draw_pickup_shift(CITY, before, now)
    figure.draw_without_rendering()
    said = f"+15.0 points in {CITY.name[5]},\n-10.0 points in {CITY.name[3]}"
    assert figure.axes[0].get_title("left").endswith(f"against the fitted trips:\n{said}")
    colours = figure.axes[0].collections[0].get_facecolor()[:, :3]
    is_grey = np.isclose(colours, to_rgb(maps.NO_VALUE_COLOUR)).all(axis=1)
    assert np.flatnonzero(~is_grey).tolist() == [2, 3, 4]


def test_a_zone_of_few_trips_has_no_colour_on_the_map_of_errors() -> None:
    zone = np.repeat([4, 5], [MIN_GROUP_TRIPS, 3])
    trips = replace(random_trips(len(zone), seed=1), pickup_zone=zone)
    off = np.where(zone == 5, 50.0, 2.0)
    figure = maps.draw_errors(CITY, trips, trips.trip_minutes + off)
    figure.draw_without_rendering()
    assert figure.axes[0].get_title("left").endswith(f"most in {CITY.name[4]}, 2.0 min")
    colours = figure.axes[0].collections[0].get_facecolor()[:, :3]
    is_grey = np.isclose(colours, to_rgb(maps.NO_VALUE_COLOUR)).all(axis=1)
    assert np.flatnonzero(~is_grey).tolist() == [3]
    (text,) = figure.axes[0].get_legend().texts
    assert text.get_text() == f"fewer than {MIN_GROUP_TRIPS} trips"


def test_the_map_of_pickups_names_the_zone_with_most_of_them() -> None:
    counts = np.zeros(N_ZONES, int)
    counts[[4, 5]] = 1_000, 9
    figure = maps.draw_pickups(CITY, counts)
    said = f"Where the 1,009 train trips start: most in {CITY.name[4]}, 1,000"
    assert figure.axes[0].get_title("left") == said
    nowhere = maps.draw_pickups(CITY, np.where(np.arange(N_ZONES) == 0, 9, 0))
    assert nowhere.axes[0].get_title("left") == "Where the 9 train trips start"


def test_the_map_of_what_moved_is_drawn_where_there_are_no_trips() -> None:
    figure = maps.draw_pickup_shift(CITY, np.zeros(N_ZONES, int), np.zeros(N_ZONES, int))
    assert figure.axes[0].get_title("left") == "Where trips begin, against the fitted trips"


def test_the_title_of_the_map_of_what_moved_is_inside_the_picture() -> None:
    before, now = np.zeros(N_ZONES, int), np.zeros(N_ZONES, int)
    before[[3, 4, 5]], now[[3, 4, 5]] = (50, 30, 20), (8, 5, 7)
    longest = "Governor's Island/Ellis Island/Liberty Island"
    figure = maps.draw_pickup_shift(replace(CITY, name=np.full(N_ZONES, longest)), before, now)
    figure.draw_without_rendering()
    title = next(text for text in figure.findobj(Text) if longest in text.get_text())
    box = title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert box.y1 <= figure.bbox.height + 1  # the layout is exact to a pixel
