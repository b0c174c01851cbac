"""Feature sets, and the encoders that turn trips into their columns; fitted on train only."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from . import TripError, columns, geometry, zones
from .columns import Columns, Feature
from .geometry import DIAGONALS, DIRECTIONS, coordinate_along
from .one_hot import PairOneHot
from .schema import Trips, clean_miles
from .surroundings import NO_SURROUNDINGS, Surroundings, find_surroundings, restore_surroundings
from .zones import OutOfFold, ZoneTables, has_old_months

if TYPE_CHECKING:
    from .city import City

# from the learned map, which `full` uses only without the TLC's map
LEARNED_MAP_TURNED = [
    coordinate_along(end, degrees) for end in ("pickup", "dropoff") for degrees in DIRECTIONS
]
LEARNED_MAP_FEATURES = [
    geometry.bearing,
    geometry.way_x,
    geometry.way_y,
    geometry.middle_x,
    geometry.middle_y,
    *LEARNED_MAP_TURNED,
]
CITY_FEATURES = [  # from the TLC's map
    geometry.pickup_crosstown,
    geometry.pickup_uptown,
    geometry.dropoff_crosstown,
    geometry.dropoff_uptown,
    geometry.air_miles,
    geometry.detour_miles,
    geometry.grid_bearing,
    geometry.way_crosstown,
    geometry.way_uptown,
    geometry.middle_crosstown,
    geometry.middle_uptown,
    *[
        coordinate_along(end, turn, is_grid=True)
        for end in ("pickup", "dropoff")
        for turn in DIAGONALS
    ],
]


FEATURES: dict[str, Feature] = {
    feature.__name__: feature
    for feature in (
        columns.distance_miles,
        columns.pickup_zone,
        columns.dropoff_zone,
        columns.hour,
        columns.weekday,
        columns.minute_of_day,
        columns.pair_trips,
        columns.pickup_trips,
        columns.dropoff_trips,
        columns.filled_miles,
        geometry.pickup_x,
        geometry.pickup_y,
        geometry.dropoff_x,
        geometry.dropoff_y,
        geometry.straight_miles,
        geometry.crookedness,
        *LEARNED_MAP_FEATURES,
        columns.traffic_weekday,
        columns.school_day,
        columns.years_ago,
        *CITY_FEATURES,
    )
}
# from fewer recess days a model learns whatever else was special about them: with none or one in
# the training months it was worse by 0.01 min, in 2021 and 2022
MIN_RECESS_DAYS = 3
# columns that `full` has only if the training months can teach them
CONDITIONAL_FEATURES = ("school_day", "years_ago")
COMPACT = ("filled_miles", "pickup_zone", "dropoff_zone", "hour", "weekday", "minute_of_day")


def _full_set(*also_excluded: Feature) -> tuple[str, ...]:
    # filled_miles and weekday add nothing to the other columns, in any year
    excluded = {
        "filled_miles",
        "weekday",
        *CONDITIONAL_FEATURES,
        *(feature.__name__ for feature in also_excluded),
    }
    return tuple(name for name in FEATURES if name not in excluded)


# name -> columns; `course` is one-hot pairs and the distance, a sparse matrix by PairOneHot
FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "course": (),
    "compact": COMPACT,
    "full": _full_set(*CITY_FEATURES),
}
# redundant beside the TLC's map and the other columns: in three years, boosters without them were
# as good and took four fifths of the time
REDUNDANT_WITH_CITY = [
    columns.pickup_trips,
    columns.dropoff_trips,
    geometry.pickup_x,
    geometry.pickup_y,
    geometry.dropoff_x,
    geometry.dropoff_y,
]
# `full` if the city is known
FULL_WITH_CITY = _full_set(*LEARNED_MAP_FEATURES, *REDUNDANT_WITH_CITY)
# columns that a trip's own distance changes
OWN_DISTANCE_FEATURES = {
    feature.__name__
    for feature in (
        columns.distance_miles,
        columns.filled_miles,
        geometry.crookedness,
        geometry.detour_miles,
    )
}
# columns that are missing or constant if no training trip has a distance, from which the map is
# learned
ANY_DISTANCE_FEATURES = {
    feature.__name__
    for feature in (
        columns.distance_miles,
        geometry.crookedness,
        geometry.detour_miles,
        geometry.straight_miles,
        geometry.pickup_x,
        geometry.pickup_y,
        geometry.dropoff_x,
        geometry.dropoff_y,
        *LEARNED_MAP_FEATURES,
    )
}


class Encoder(Protocol):
    """Encodes trips as a matrix; fitted on training months."""

    @property
    def names(self) -> list[str]:
        """Column names of the matrix, k of them."""

    def transform(self, trips: Trips) -> Any:
        """Encode n new trips as a matrix [n, k]."""

    def transform_train(self, trips: Trips) -> Any:
        """Encode the n trips the encoder was fitted on as a matrix [n, k]."""

    def state(self) -> dict[str, Any]:
        """Return the encoder as plain JSON values; `restore_encoder` rebuilds it."""


@dataclass(frozen=True)
class DenseFeatures:
    """Features of FEATURES side by side, float32; NaN where a value is unknown."""

    names: list[str]
    tables: ZoneTables
    around: Surroundings = NO_SURROUNDINGS

    def transform(self, trips: Trips) -> np.ndarray:
        """Encode n new trips as float32 [n, k]."""
        return self._matrix(Columns(trips, self.tables, self.around))

    def transform_train(self, trips: Trips, *, hide_distance: bool = False) -> np.ndarray:
        """Encode the n training trips as float32 [n, k], pair distances out of fold.

        Args:
            trips: n trips.
            hide_distance: encode them as if their own distance were unknown.
        """
        return self.transform_rows(trips, OutOfFold(trips), 0, hide_distance=hide_distance)

    def transform_rows(
        self, trips: Trips, out_of_fold: OutOfFold, first_row: int, *, hide_distance: bool
    ) -> np.ndarray:
        """Encode n consecutive training trips as `transform_train` does.

        Args:
            trips: n trips.
            out_of_fold: of all training trips.
            first_row: index of the first one among all training trips.
            hide_distance: encode them as if their own distance were unknown.
        """
        return self._matrix(
            Columns(
                trips,
                self.tables,
                self.around,
                out_of_fold=out_of_fold,
                first_row=first_row,
                hide_distance=hide_distance,
            )
        )

    def hide_distance(self, matrix: np.ndarray, trips: Trips) -> np.ndarray:
        """Encode n new trips as if no distance were known, float32 [n, k].

        Args:
            matrix: the trips as encoded by `transform`; OWN_DISTANCE_FEATURES are computed again.
            trips: the n trips.
        """
        hidden = matrix.copy()
        columns = Columns(trips, self.tables, self.around, hide_distance=True)
        for column, name in enumerate(self.names):
            if name in OWN_DISTANCE_FEATURES:
                hidden[:, column] = FEATURES[name](columns)
        return hidden

    def _matrix(self, columns: Columns) -> np.ndarray:
        matrix = np.empty((len(columns.trips), len(self.names)), np.float32)
        for column, name in enumerate(self.names):
            matrix[:, column] = FEATURES[name](columns)
        return matrix

    def state(self) -> dict[str, Any]:
        """Return the names and the tables as plain JSON values."""
        tables = {f.name: getattr(self.tables, f.name).tolist() for f in fields(self.tables)}
        state = {"set": "dense", "names": self.names, "tables": tables}
        # a feature set that needs none stores none
        known = {} if self.around is NO_SURROUNDINGS else {"surroundings": self.around.state()}
        return state | known


def fit_encoder(name: str, trips: Trips, city: "City | None" = None) -> Encoder:
    """Fit the encoder of a feature set on training trips.

    Args:
        name: key of FEATURE_SETS.
        trips: n training trips; their trip_minutes are not used.
        city: the TLC's zones; without it `full` lacks the columns of their map.
    Raises:
        TripError: there is no such feature set.
    """
    check_feature_set(name)
    if name == "course":
        pairs = {f"{pu}_{do}" for pu, do in zip(trips.pickup_zone, trips.dropoff_zone, strict=True)}
        return PairOneHot(sorted(pairs))
    names = list(FULL_WITH_CITY if name == "full" and city else FEATURE_SETS[name])
    if name == "full" and np.isnan(clean_miles(trips)).all():
        names = [column for column in names if column not in ANY_DISTANCE_FEATURES]
    around = find_surroundings(city) if name == "full" else NO_SURROUNDINGS
    if columns.n_recess_days(trips, around) >= MIN_RECESS_DAYS:
        names.append(columns.school_day.__name__)
    if name == "full" and has_old_months(trips):
        names.append(columns.years_ago.__name__)
    return DenseFeatures(names, zones.fit_zone_tables(trips), around)


def check_feature_set(name: str) -> None:
    """Refuse a feature set that does not exist.

    Raises:
        TripError: it is not a key of FEATURE_SETS.
    """
    if name not in FEATURE_SETS:
        raise TripError(f"Unknown features {name!r}. Choose from {sorted(FEATURE_SETS)}.")


def restore_encoder(state: Mapping[str, Any]) -> Encoder:
    """Rebuild an encoder from its `state`."""
    if state["set"] == "course":
        return PairOneHot(state["pairs"])
    tables = {
        # NaN is not standard JSON, but Python's json writes and reads it
        name: np.array(values, float if name in _FLOAT_TABLES else np.int64)
        for name, values in state["tables"].items()
    }
    around = restore_surroundings(state.get("surroundings"))
    return DenseFeatures(state["names"], ZoneTables(**tables), around)


_FLOAT_TABLES = {"pair_miles", "zone_miles", "position"}
