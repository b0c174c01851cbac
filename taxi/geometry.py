"""Features of where a trip goes, on the map learned from trips and on the TLC's map."""

import numpy as np

from .columns import Columns, Feature

# --- the learned map, whose axes have no fixed direction


def pickup_x(c: Columns) -> np.ndarray:
    """Where the pickup zone lies along the learned map's first axis, miles."""
    return c.position[c.pickup, 0]


def pickup_y(c: Columns) -> np.ndarray:
    """Where the pickup zone lies along the learned map's second axis, miles."""
    return c.position[c.pickup, 1]


def dropoff_x(c: Columns) -> np.ndarray:
    """Where the dropoff zone lies along the learned map's first axis, miles."""
    return c.position[c.dropoff, 0]


def dropoff_y(c: Columns) -> np.ndarray:
    """Where the dropoff zone lies along the learned map's second axis, miles."""
    return c.position[c.dropoff, 1]


def straight_miles(c: Columns) -> np.ndarray:
    """Straight line between the zones on the learned map, miles."""
    return np.hypot(c.displacement[:, 0], c.displacement[:, 1])


def crookedness(c: Columns) -> np.ndarray:
    """How crooked the way is, planned distance over straight line; half a mile is added to that."""
    return c.miles / (straight_miles(c) + 0.5)


def bearing(c: Columns) -> np.ndarray:
    """Direction of travel on the learned map, radians."""
    return np.arctan2(c.displacement[:, 1], c.displacement[:, 0])


def way_x(c: Columns) -> np.ndarray:
    """How far the way goes along the learned map's first axis, miles."""
    return c.displacement[:, 0]


def way_y(c: Columns) -> np.ndarray:
    """How far the way goes along the learned map's second axis, miles."""
    return c.displacement[:, 1]


def middle_x(c: Columns) -> np.ndarray:
    """Where the middle of the way lies along the learned map's first axis, miles."""
    return pickup_x(c) + c.displacement[:, 0] / 2


def middle_y(c: Columns) -> np.ndarray:
    """Where the middle of the way lies along the learned map's second axis, miles."""
    return pickup_y(c) + c.displacement[:, 1] / 2


def coordinate_along(end: str, degrees: int, *, is_grid: bool = False) -> Feature:
    """Make the feature «how far a zone lies in a direction of a map», miles.

    A tree splits on one column at a time, while avenues and rivers run in any direction.

    Args:
        end: pickup or dropoff.
        degrees: from the learned map's first axis, or from Manhattan's crosstown streets.
        is_grid: whether the map is the TLC's, turned to that grid.
    """
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def feature(c: Columns) -> np.ndarray:
        positions = (c.around.place if is_grid else c.position)[getattr(c, end)]
        # no matrix product: its last digit depends on the number of rows
        return positions[:, 0] * cosine + positions[:, 1] * sine

    map_name = "street grid" if is_grid else "learned map"
    feature.__name__ = f"{end}_grid_{degrees}" if is_grid else f"{end}_{degrees}"
    axis = f"{degrees} degrees from the {map_name}'s first axis"
    feature.__doc__ = f"Where the {end} zone lies {axis}, miles."
    return feature


DIRECTIONS = (30, 45, 60, 120, 135, 150)  # degrees; 0 and 90 are x and y


# --- the TLC's map of the zones, with axes across and along Manhattan's avenues


def pickup_crosstown(c: Columns) -> np.ndarray:
    """Where the pickup zone lies across the avenues, miles."""
    return c.around.place[c.pickup, 0]


def pickup_uptown(c: Columns) -> np.ndarray:
    """Where the pickup zone lies along the avenues, miles."""
    return c.around.place[c.pickup, 1]


def dropoff_crosstown(c: Columns) -> np.ndarray:
    """Where the dropoff zone lies across the avenues, miles."""
    return c.around.place[c.dropoff, 0]


def dropoff_uptown(c: Columns) -> np.ndarray:
    """Where the dropoff zone lies along the avenues, miles."""
    return c.around.place[c.dropoff, 1]


def air_miles(c: Columns) -> np.ndarray:
    """Straight line between the zones, miles; from centroid to centroid."""
    return np.hypot(c.grid_displacement[:, 0], c.grid_displacement[:, 1])


def detour_miles(c: Columns) -> np.ndarray:
    """How much longer the way is than that straight line, planned distance less it, miles."""
    return c.miles - air_miles(c)


def grid_bearing(c: Columns) -> np.ndarray:
    """Direction of travel against that of the crosstown streets, radians."""
    return np.arctan2(c.grid_displacement[:, 1], c.grid_displacement[:, 0])


def way_crosstown(c: Columns) -> np.ndarray:
    """How far the way goes across the avenues, miles."""
    return c.grid_displacement[:, 0]


def way_uptown(c: Columns) -> np.ndarray:
    """How far the way goes along the avenues, miles."""
    return c.grid_displacement[:, 1]


def middle_crosstown(c: Columns) -> np.ndarray:
    """Where the middle of the way lies across the avenues, miles."""
    return pickup_crosstown(c) + c.grid_displacement[:, 0] / 2


def middle_uptown(c: Columns) -> np.ndarray:
    """Where the middle of the way lies along the avenues, miles."""
    return pickup_uptown(c) + c.grid_displacement[:, 1] / 2


# along the streets of the other boroughs
DIAGONALS = (45, 135)  # degrees; 0 is crosstown and 90 uptown
