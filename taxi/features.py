"""From trips to feature columns: a table of named features, fitted on train months only.

Everything here is known at pickup, plus the planned distance. Not used: pickup seconds, passenger
count, rate code, trip type and the store-and-forward flag, which tell the computer that wrote the
record or are known only after the trip; fares and the drop-off time are known only after it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_matrix

from . import TripError, zones
from .schema import Trips, clean_miles, known_zone
from .zones import ZoneTables


class Columns:
    """Intermediate columns that several features share, computed once for n trips."""

    def __init__(self, trips: Trips, tables: ZoneTables, *, is_train: bool) -> None:
        self.trips = trips
        self.tables = tables
        self.is_train = is_train
        self.pickup = known_zone(trips.pickup_zone)
        self.dropoff = known_zone(trips.dropoff_zone)
        self.miles = clean_miles(trips)
        self.minutes = trips.pickup_at.astype("datetime64[m]").astype(np.int64)

    @cached_property
    def pair(self) -> np.ndarray:
        """Row of each trip's pair in the tables, int64 [n]; the last row + 1 where unseen."""
        known = self.tables.pairs
        codes = zones.pair_code(self.trips)
        row = np.searchsorted(known, codes)
        seen = known[np.minimum(row, len(known) - 1)] == codes
        return np.where(seen, row, len(known))

    def of_pair(self, values: np.ndarray, unseen: float) -> np.ndarray:
        """Statistic of each trip's pair, [n]; `unseen` for pairs the train months do not have."""
        return np.append(values, unseen)[self.pair]

    @cached_property
    def pair_miles(self) -> np.ndarray:
        """Typical distance of the pair; a train row's own fold does not vote on it."""
        if self.is_train:
            return zones.pair_miles_out_of_fold(self.trips)
        return self.of_pair(self.tables.pair_miles, np.nan)

    @cached_property
    def typical_miles(self) -> np.ndarray:
        """The pair's typical distance, else the mean of its two zones' ones."""
        both = self.tables.zone_miles[self.pickup] + self.tables.zone_miles[self.dropoff]
        return np.where(np.isnan(self.pair_miles), both / 2, self.pair_miles)

    @cached_property
    def way(self) -> np.ndarray:
        """Vector from pickup to dropoff zone on the learned map, miles [n, 2]."""
        return self.tables.position[self.dropoff] - self.tables.position[self.pickup]


Feature = Callable[[Columns], np.ndarray]


def distance_miles(c: Columns) -> np.ndarray:
    """Planned distance; missing where it is not in (0, 60] miles."""
    return c.miles


def pickup_zone(c: Columns) -> np.ndarray:
    """TLC zone of the pickup."""
    return c.pickup


def dropoff_zone(c: Columns) -> np.ndarray:
    """TLC zone of the dropoff."""
    return c.dropoff


def hour(c: Columns) -> np.ndarray:
    """Hour of the pickup, 0..23."""
    return c.minutes // 60 % 24


def weekday(c: Columns) -> np.ndarray:
    """Day of the pickup, 0 = Monday."""
    return (c.minutes // 1440 + 3) % 7  # 1970-01-01 was a Thursday


def minute_of_day(c: Columns) -> np.ndarray:
    """Minute of the pickup, 0..1439."""
    return c.minutes % 1440


def pair_trips(c: Columns) -> np.ndarray:
    """log(1 + trips) of the pair in the train months."""
    return np.log1p(c.of_pair(c.tables.pair_trips, 0))


def pickup_trips(c: Columns) -> np.ndarray:
    """Train trips that start in the pickup zone."""
    return c.tables.pickup_trips[c.pickup]


def dropoff_trips(c: Columns) -> np.ndarray:
    """Train trips that end in the dropoff zone."""
    return c.tables.dropoff_trips[c.dropoff]


def filled_miles(c: Columns) -> np.ndarray:
    """Planned distance, else the pair's typical one, else the two zones' mean."""
    return np.where(np.isnan(c.miles), c.typical_miles, c.miles)


def pickup_x(c: Columns) -> np.ndarray:
    """First map coordinate of the pickup zone, miles."""
    return c.tables.position[c.pickup, 0]


def pickup_y(c: Columns) -> np.ndarray:
    """Second map coordinate of the pickup zone, miles."""
    return c.tables.position[c.pickup, 1]


def dropoff_x(c: Columns) -> np.ndarray:
    """First map coordinate of the dropoff zone, miles."""
    return c.tables.position[c.dropoff, 0]


def dropoff_y(c: Columns) -> np.ndarray:
    """Second map coordinate of the dropoff zone, miles."""
    return c.tables.position[c.dropoff, 1]


def straight_miles(c: Columns) -> np.ndarray:
    """Straight-line distance between the zones on the map."""
    return np.hypot(c.way[:, 0], c.way[:, 1])


def crookedness(c: Columns) -> np.ndarray:
    """Planned distance over the straight line, with half a mile for ways inside a zone."""
    return c.miles / (straight_miles(c) + 0.5)


def bearing(c: Columns) -> np.ndarray:
    """Direction of travel on the map, radians."""
    return np.arctan2(c.way[:, 1], c.way[:, 0])


def way_x(c: Columns) -> np.ndarray:
    """First component of the way between the zones, miles."""
    return c.way[:, 0]


def way_y(c: Columns) -> np.ndarray:
    """Second component of the way between the zones, miles."""
    return c.way[:, 1]


def middle_x(c: Columns) -> np.ndarray:
    """First coordinate of the middle between the zones, miles."""
    return pickup_x(c) + c.way[:, 0] / 2


def middle_y(c: Columns) -> np.ndarray:
    """Second coordinate of the middle between the zones, miles."""
    return pickup_y(c) + c.way[:, 1] / 2


def along(end: str, degrees: int) -> Feature:
    """Make the feature «how far a zone lies in a direction of the map», miles.

    A tree cuts along its columns only, and the city's avenues and rivers run as they like.
    """
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def feature(c: Columns) -> np.ndarray:
        place = c.tables.position[getattr(c, end)]
        # no matrix product: its last digit depends on how many rows it is given
        return place[:, 0] * cosine + place[:, 1] * sine

    feature.__name__ = f"{end}_{degrees}"
    feature.__doc__ = f"Where the {end} zone lies on the map in the direction of {degrees} degrees."
    return feature


DIRECTIONS = (30, 45, 60, 120, 135, 150)  # degrees; 0 and 90 are x and y

FEATURES: dict[str, Feature] = {
    feature.__name__: feature
    for feature in (
        distance_miles,
        pickup_zone,
        dropoff_zone,
        hour,
        weekday,
        minute_of_day,
        pair_trips,
        pickup_trips,
        dropoff_trips,
        filled_miles,
        pickup_x,
        pickup_y,
        dropoff_x,
        dropoff_y,
        straight_miles,
        crookedness,
        bearing,
        way_x,
        way_y,
        middle_x,
        middle_y,
        *(along(end, degrees) for end in ("pickup", "dropoff") for degrees in DIRECTIONS),
    )
}
COMPACT = ("filled_miles", "pickup_zone", "dropoff_zone", "hour", "weekday", "minute_of_day")
# name -> columns; `course` is the pair one-hot + distance, a matrix of its own kind
FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "course": (),
    "compact": COMPACT,
    # beside the map the pair's typical distance pays in neither year
    "full": tuple(name for name in FEATURES if name != "filled_miles"),
}


class Encoder(Protocol):
    """Encodes trips as a matrix; fitted on train months."""

    @property
    def names(self) -> list[str]:
        """Column names of the matrix, k of them."""

    def transform(self, trips: Trips) -> Any:
        """Encode n trips never seen in fitting as a matrix [n, k]."""

    def transform_train(self, trips: Trips) -> Any:
        """Encode the n trips the encoder was fitted on as a matrix [n, k]."""

    def state(self) -> dict[str, Any]:
        """Return all that was fitted as plain JSON values; `restore_encoder` rebuilds it."""


@dataclass(frozen=True)
class PairOneHot:
    """The course's encoding: one column per pair of zones, and the raw distance."""

    pairs: list[str]  # "PU_DO", ascending as text, as DictVectorizer orders them

    @property
    def names(self) -> list[str]:
        """Column names, as DictVectorizer writes them."""
        return [*(f"PU_DO={pair}" for pair in self.pairs), "trip_distance"]

    def transform(self, trips: Trips) -> csr_matrix:
        """Encode n trips as float64 [n, p + 1] CSR; an unseen pair has no column set.

        A missing distance counts as 0, which is what the TLC's meters write for it.
        """
        n, p = len(trips), len(self.pairs)
        codes = np.array([_code(pair) for pair in self.pairs])
        order = np.argsort(codes)
        wanted = trips.pickup_zone.astype(np.int64) * 1_000_000 + trips.dropoff_zone
        place = np.minimum(np.searchsorted(codes[order], wanted), p - 1)
        column = order[place]
        seen = codes[column] == wanted
        # int32: Lasso refuses the int64 that scipy would choose
        rows = np.concatenate([np.flatnonzero(seen), np.arange(n)]).astype(np.int32)
        columns = np.concatenate([column[seen], np.full(n, p)]).astype(np.int32)
        values = np.concatenate([np.ones(seen.sum()), np.nan_to_num(trips.distance_miles)])
        return csr_matrix((values, (rows, columns)), shape=(n, p + 1))

    transform_train = transform

    def state(self) -> dict[str, Any]:
        """Return the vocabulary as plain JSON values."""
        return {"set": "course", "pairs": self.pairs}


@dataclass(frozen=True)
class DenseFeatures:
    """Named features of FEATURES side by side, float32, NaN where one cannot be known."""

    names: list[str]
    tables: ZoneTables

    def transform(self, trips: Trips) -> np.ndarray:
        """Encode n new trips as float32 [n, k]."""
        return self._matrix(Columns(trips, self.tables, is_train=False))

    def transform_train(self, trips: Trips) -> np.ndarray:
        """Encode the train trips, out of fold where a feature would see the row itself."""
        return self._matrix(Columns(trips, self.tables, is_train=True))

    def _matrix(self, columns: Columns) -> np.ndarray:
        matrix = np.empty((len(columns.trips), len(self.names)), np.float32)
        for place, name in enumerate(self.names):
            matrix[:, place] = FEATURES[name](columns)
        return matrix

    def state(self) -> dict[str, Any]:
        """Return the names and the tables as plain JSON values."""
        tables = {f.name: getattr(self.tables, f.name).tolist() for f in fields(self.tables)}
        return {"set": "dense", "names": self.names, "tables": tables}


def fit_encoder(name: str, trips: Trips) -> Encoder:
    """Fit the encoder of a feature set on train trips.

    Args:
        name: key of FEATURE_SETS.
        trips: n train trips; their trip_minutes are not looked at.
    Raises:
        TripError: there is no such feature set.
    """
    check_feature_set(name)
    if name == "course":
        pairs = {f"{pu}_{do}" for pu, do in zip(trips.pickup_zone, trips.dropoff_zone, strict=True)}
        return PairOneHot(sorted(pairs))
    return DenseFeatures(list(FEATURE_SETS[name]), zones.fit_zone_tables(trips))


def check_feature_set(name: str) -> None:
    """Refuse a feature set that does not exist.

    Raises:
        TripError: it is no key of FEATURE_SETS.
    """
    if name not in FEATURE_SETS:
        raise TripError(f"Unknown features {name!r}. Choose from {sorted(FEATURE_SETS)}.")


def restore_encoder(state: Mapping[str, Any]) -> Encoder:
    """Rebuild an encoder from its `state`."""
    if state["set"] == "course":
        return PairOneHot(state["pairs"])
    tables = {
        # JSON has no NaN of its own, Python's reader and writer agree on one
        name: np.array(values, float if name in _FLOATS else np.int64)
        for name, values in state["tables"].items()
    }
    return DenseFeatures(state["names"], ZoneTables(**tables))


_FLOATS = {"pair_miles", "zone_miles", "position"}


def _code(pair: str) -> int:
    pickup, dropoff = pair.split("_")
    return int(pickup) * 1_000_000 + int(dropoff)
