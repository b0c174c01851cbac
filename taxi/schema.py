"""Column names, types and units of a trip, and which of them a model reads: each said once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from . import TripError

# the prefix of the two time columns is all that differs between the taxis' files
PREFIXES: Mapping[str, str] = {"green": "lpep", "yellow": "tpep"}

N_ZONES = 266  # TLC ids are 1..265; 0 stands for an id that the TLC does not have
MAX_MILES = 60.0  # a longer metered distance is a fault of the meter
# a shorter ride is a cancelled one, a longer one a meter left running (the course's bounds)
MIN_MINUTES, MAX_MINUTES = 1, 60

# the trips that preprocess writes and every model is trained on
TRIPS = pa.schema(
    [
        pa.field("pickup_at", pa.timestamp("us"), nullable=False),  # New York local time
        pa.field("pickup_zone", pa.int32(), nullable=False),  # TLC zone 1..265; 264, 265 unknown
        pa.field("dropoff_zone", pa.int32(), nullable=False),
        pa.field("distance_miles", pa.float64()),  # as metered; <= 0 or absurd values are kept
        pa.field("trip_minutes", pa.float64(), nullable=False),  # the target
    ]
)


# what a model reads of a trip: role -> whether a caller must send it. What follows the drop-off is
# not known yet, and the planned distance may not be
INPUTS: Mapping[str, bool] = {
    "pickup_at": True,
    "pickup_zone": True,
    "dropoff_zone": True,
    "distance_miles": False,
}


class RawColumn(NamedTuple):
    """One column that a TLC file must have."""

    name: str  # as the TLC spells it
    role: str  # what it is called from here on
    type: pa.DataType  # what its values must be castable to


def raw_columns(taxi: str) -> tuple[RawColumn, ...]:
    """List the columns read from a TLC file; every other one is ignored.

    Raises:
        TripError: taxi is neither green nor yellow.
    Source: TLC trip-record data dictionaries.
    """
    if taxi not in PREFIXES:
        raise TripError(f"Unknown taxi {taxi!r}. Choose from {sorted(PREFIXES)}.")
    prefix = PREFIXES[taxi]
    return (
        RawColumn(f"{prefix}_pickup_datetime", "pickup_at", pa.timestamp("us")),
        RawColumn(f"{prefix}_dropoff_datetime", "dropoff_at", pa.timestamp("us")),
        RawColumn("PULocationID", "pickup_zone", pa.int32()),
        RawColumn("DOLocationID", "dropoff_zone", pa.int32()),
        RawColumn("trip_distance", "distance_miles", pa.float64()),
    )


def input_names(taxi: str) -> dict[str, str]:
    """List a model's inputs: role of INPUTS -> the TLC's column name.

    Raises:
        TripError: taxi is neither green nor yellow.
    """
    return {column.role: column.name for column in raw_columns(taxi) if column.role in INPUTS}


def taxi_of(columns: Collection[str]) -> str | None:
    """Return the taxi whose pickup column is among these; None where there is no one such taxi."""
    taxis = [taxi for taxi in PREFIXES if input_names(taxi)["pickup_at"] in columns]
    return taxis[0] if len(taxis) == 1 else None


def known_zone(zone: np.ndarray) -> np.ndarray:
    """Replace ids that the TLC does not have by 0, [n] of the same type."""
    return np.where((zone > 0) & (zone < N_ZONES), zone, 0)


def match_columns(
    file: pa.Schema, taxi: str, *, may_miss: frozenset[str] = frozenset()
) -> dict[str, RawColumn]:
    """Find each required column in a file, whatever its case or stray spaces.

    Args:
        file: its columns; what is not asked for is ignored.
        taxi: green or yellow.
        may_miss: roles that a file may be without.

    Returns:
        The file's own column name -> the required column it is, in the file's order.
    Raises:
        TripError: a column is missing, or its type can never hold such values.
    """
    spelled = {name.strip().lower(): name for name in file.names}
    matched = {}
    for column in raw_columns(taxi):
        name = spelled.get(column.name.lower())
        if name is None and column.role in may_miss:
            continue
        if name is None:
            raise TripError(
                f"Column {column.name!r} is missing. Columns seen: {', '.join(file.names)}. "
                f"Check that these are {taxi} trips, or pass -P taxi={_other(taxi)}."
            )
        if not _castable(file.field(name).type, column.type):
            raise TripError(
                f"Column {column.name!r} has type {file.field(name).type}; "
                f"it must hold values of {column.type}. Mend the file."
            )
        matched[name] = column
    return {name: matched[name] for name in file.names if name in matched}


@dataclass(frozen=True)
class Trips:
    """Trips as arrays, n rows each; what features and models work on."""

    pickup_at: np.ndarray  # datetime64[us]
    pickup_zone: np.ndarray  # int32
    dropoff_zone: np.ndarray  # int32
    distance_miles: np.ndarray  # float64, NaN where missing
    trip_minutes: np.ndarray  # float64; NaN where the trip is still to be made

    def __len__(self) -> int:
        """Count the trips."""
        return len(self.pickup_at)

    def take(self, rows: np.ndarray | slice) -> "Trips":
        """Select rows by index, mask or slice, in that order."""
        return Trips(*(getattr(self, field.name)[rows] for field in fields(self)))

    def without_distance(self) -> "Trips":
        """Return the same trips, of none of which the distance is known."""
        return replace(self, distance_miles=np.full(len(self), np.nan))


def join_trips(parts: Sequence[Trips]) -> Trips:
    """Put trips one after the other."""
    columns = (field.name for field in fields(Trips))
    return Trips(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def clean_miles(trips: Trips) -> np.ndarray:
    """Return the distances in miles, float64 [n], NaN where they are not in (0, MAX_MILES]."""
    miles = trips.distance_miles
    with np.errstate(invalid="ignore"):
        return np.where((miles > 0) & (miles <= MAX_MILES), miles, np.nan)


def to_trips(table: pa.Table) -> Trips:
    """Convert a table with the columns of TRIPS, n rows, to arrays."""
    return Trips(*(table.column(name).to_numpy() for name in TRIPS.names))


def _castable(given: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if types.is_string(given) or types.is_large_string(given) or types.is_null(given):
        return True  # text may hold anything; its values are checked when they are cast
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(given) or types.is_date(given))
    return bool(types.is_integer(given) or types.is_floating(given) or types.is_decimal(given))


def _other(taxi: str) -> str:
    return "yellow" if taxi == "green" else "green"
