"""What an encoder stores about the city and the calendar, independent of trips."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .schema import N_ZONES

if TYPE_CHECKING:
    from .city import City

GRID_DEGREES = 29.0  # Manhattan's avenues run this far east of north
DECIMALS = 4  # of a place in miles: half a foot


@dataclass(frozen=True)
class Surroundings:
    """Facts about zones, arrays indexed by zone, and about days, counted from 1970-01-01."""

    place: np.ndarray  # float64 [N_ZONES, 2], miles across and along the avenues, never NaN
    holidays: np.ndarray  # int64 [d], ascending
    recess: np.ndarray  # int64 [r], ascending: days in weeks without school

    def state(self) -> dict[str, Any]:
        """Return the surroundings as plain JSON values; `restore_surroundings` rebuilds them."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}


# without a city all zones are in one place, without a calendar all weeks are alike
NO_SURROUNDINGS = Surroundings(np.zeros((N_ZONES, 2)), np.zeros(0, np.int64), np.zeros(0, np.int64))


def find_surroundings(city: "City | None") -> Surroundings:
    """Gather the zones' places and the calendar.

    Args:
        city: the TLC's zones; without it all zones are in one place.
    """
    # imported here: a served model is restored from the result and ships without the calendar
    from .days import public_holidays, school_recess

    place = NO_SURROUNDINGS.place if city is None else turn_to_grid(city.centroid)
    return Surroundings(place, public_holidays(), school_recess())


def restore_surroundings(state: Mapping[str, Any] | None) -> Surroundings:
    """Rebuild surroundings from their `state`; NO_SURROUNDINGS from None, of an encoder without."""
    if state is None:
        return NO_SURROUNDINGS
    holidays, recess = (np.array(state[name], np.int64) for name in ("holidays", "recess"))
    return Surroundings(np.array(state["place"], float), holidays, recess)


def turn_to_grid(centroid: np.ndarray) -> np.ndarray:
    """Turn the map so that Manhattan's avenues run along its second axis.

    A tree splits on one column at a time; on a map turned like this, splits follow the streets.

    Args:
        centroid: [N_ZONES, 2] miles east and north, NaN where unknown.
    Returns:
        float64 [N_ZONES, 2], miles from the mean of the zones. Unknown zones are put there: a few
        missing values in a column cost xgboost a third of its speed.
    """
    east, north = (centroid - np.nanmean(centroid, axis=0)).T
    cosine, sine = np.cos(np.radians(GRID_DEGREES)), np.sin(np.radians(GRID_DEGREES))
    turned = np.stack([east * cosine - north * sine, east * sine + north * cosine], axis=1)
    return np.round(np.nan_to_num(turned), DECIMALS)
