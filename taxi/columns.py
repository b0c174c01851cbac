"""Features of a trip's planned distance, zones and pickup time.

Everything here is known at pickup, given a planned distance. Not used: pickup seconds, passenger
count, rate code, trip type and the store-and-forward flag, which identify the computer that wrote
the record or are known only after the trip, as are fares and the drop-off time.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from . import zones
from .schema import Trips, clean_miles, zone_or_0
from .surroundings import Surroundings
from .zones import OutOfFold, ZoneTables


class Columns:
    """Intermediate columns that several features share, computed once for n trips."""

    def __init__(
        self,
        trips: Trips,
        tables: ZoneTables,
        around: Surroundings,
        *,
        out_of_fold: OutOfFold | None = None,
        first_row: int = 0,
        hide_distance: bool = False,
    ) -> None:
        """Prepare the columns of n trips.

        Args:
            trips: n trips.
            tables: fitted on the training months.
            around: the zones' places and the calendar.
            out_of_fold: of all training trips, if these are among them; None for new trips.
            first_row: index of the first of these trips among all training trips.
            hide_distance: treat their own distance as unknown.
        """
        self.trips = trips
        self.tables = tables
        self.around = around
        self.out_of_fold = out_of_fold
        self.first_row = first_row
        self.pickup = zone_or_0(trips.pickup_zone)
        self.dropoff = zone_or_0(trips.dropoff_zone)
        self.miles = np.full(len(trips), np.nan) if hide_distance else clean_miles(trips)
        self.minutes = trips.pickup_at.astype("datetime64[m]").astype(np.int64)
        self.day = self.minutes // 1440  # counted from 1970-01-01

    @cached_property
    def is_holiday(self) -> np.ndarray:
        """Whether offices are closed all day, bool [n]."""
        return np.isin(self.day, self.around.holidays)

    @cached_property
    def pair(self) -> np.ndarray:
        """Row of each trip's pair in the tables, int64 [n]; the number of rows where unseen."""
        known = self.tables.pairs
        codes = zones.pair_code(self.trips)
        row = np.searchsorted(known, codes)
        seen = known[np.minimum(row, len(known) - 1)] == codes
        return np.where(seen, row, len(known))

    def of_pair(self, values: np.ndarray, unseen: float) -> np.ndarray:
        """Look up a statistic of each trip's pair, [n]; `unseen` where the pair is unseen."""
        return np.append(values, unseen)[self.pair]

    @cached_property
    def pair_miles(self) -> np.ndarray:
        """Median distance of each trip's pair, miles [n]; of a training row, out of fold."""
        if self.out_of_fold:
            return self.out_of_fold.of_rows(self.first_row, zones.pair_code(self.trips))
        return self.of_pair(self.tables.pair_miles, np.nan)

    @cached_property
    def typical_miles(self) -> np.ndarray:
        """Median distance of the pair, else the mean of its two zones' medians, miles [n]."""
        both = self.tables.zone_miles[self.pickup] + self.tables.zone_miles[self.dropoff]
        return np.where(np.isnan(self.pair_miles), both / 2, self.pair_miles)

    @cached_property
    def position(self) -> np.ndarray:
        """Positions of the zones on the learned map, miles [N_ZONES, 2]; 0, 0 where unknown.

        A few missing values in a column cost xgboost a third of its speed.
        """
        return np.nan_to_num(self.tables.position)

    @cached_property
    def displacement(self) -> np.ndarray:
        """Vector from pickup to dropoff zone on the learned map, miles [n, 2]."""
        return self.position[self.dropoff] - self.position[self.pickup]

    @cached_property
    def grid_displacement(self) -> np.ndarray:
        """Vector from pickup to dropoff zone across and along the avenues, miles [n, 2]."""
        return self.around.place[self.dropoff] - self.around.place[self.pickup]


Feature = Callable[[Columns], np.ndarray]


def distance_miles(c: Columns) -> np.ndarray:
    """Planned distance, miles; missing where it is not in (0, 60]."""
    return c.miles


def pickup_zone(c: Columns) -> np.ndarray:
    """Zone of the pickup; its id at the TLC."""
    return c.pickup


def dropoff_zone(c: Columns) -> np.ndarray:
    """Zone of the dropoff; its id at the TLC."""
    return c.dropoff


def hour(c: Columns) -> np.ndarray:
    """Hour of the pickup; 0..23."""
    return c.minutes // 60 % 24


def weekday(c: Columns) -> np.ndarray:
    """Weekday of the pickup; 0 = Monday."""
    return (c.day + 3) % 7  # 1970-01-01 was a Thursday


def minute_of_day(c: Columns) -> np.ndarray:
    """Time of the pickup to the minute; 0..1439."""
    return c.minutes % 1440


def pair_trips(c: Columns) -> np.ndarray:
    """How common the pair of zones is; log(1 + trips) in the train months."""
    return np.log1p(c.of_pair(c.tables.pair_trips, 0))


def pickup_trips(c: Columns) -> np.ndarray:
    """How busy the pickup zone is; train trips that start there."""
    return c.tables.pickup_trips[c.pickup]


def dropoff_trips(c: Columns) -> np.ndarray:
    """How busy the dropoff zone is; train trips that end there."""
    return c.tables.dropoff_trips[c.dropoff]


def filled_miles(c: Columns) -> np.ndarray:
    """Planned distance, miles; else the pair's typical one, else the two zones' mean."""
    return np.where(np.isnan(c.miles), c.typical_miles, c.miles)


def traffic_weekday(c: Columns) -> np.ndarray:
    """Weekday of the pickup, holidays as Sundays; 0 = Monday.

    Columns of their own for holidays or for the minute of the week add nothing to it.
    """
    return np.where(c.is_holiday, 6, weekday(c))


def school_day(c: Columns) -> np.ndarray:
    """Whether there is school; 1 from Monday to Friday but for holidays and recesses, else 0."""
    return (weekday(c) < 5) & ~c.is_holiday & ~np.isin(c.day, c.around.recess)


def years_ago(c: Columns) -> np.ndarray:
    """Years from a train trip's month to the latest one, rounded; 0 for a new trip.

    A model can thus separate what changes from year to year, and predicts new trips as those of the
    latest year.
    """
    if c.out_of_fold is None:
        return np.zeros(len(c.trips), np.int64)
    return c.out_of_fold.years_ago(c.trips)


def n_recess_days(trips: Trips, around: Surroundings) -> int:
    """Count the school recess days with trips, other than weekends and holidays."""
    days = np.unique(trips.pickup_at.astype("datetime64[D]").astype(np.int64))
    is_workday = ((days + 3) % 7 < 5) & ~np.isin(days, around.holidays)
    return int((is_workday & np.isin(days, around.recess)).sum())
