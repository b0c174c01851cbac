"""Column names, types and units of a trip, said once."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from . import TripError

# the prefix of the two time columns is all that differs between the taxis' files
PREFIXES: Mapping[str, str] = {"green": "lpep", "yellow": "tpep"}

N_ZONES = 266  # TLC ids are 1..265; 0 stands for an id that the TLC does not have

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


def match_columns(
    found: pa.Schema, taxi: str, *, may_miss: frozenset[str] = frozenset()
) -> dict[str, RawColumn]:
    """Find each required column in a file, whatever its case or stray spaces.

    Args:
        found: the file's columns; what is not asked for is ignored.
        taxi: green or yellow.
        may_miss: roles that a file may be without.

    Returns:
        The file's own column name -> the required column it is, in the file's order.
    Raises:
        TripError: a column is missing, or its type can never hold such values.
    """
    spelled = {name.strip().lower(): name for name in found.names}
    matched = {}
    for column in raw_columns(taxi):
        name = spelled.get(column.name.lower())
        if name is None and column.role in may_miss:
            continue
        if name is None:
            raise TripError(
                f"Column {column.name!r} is missing. Columns seen: {', '.join(found.names)}. "
                f"Check that these are {taxi} trips, or pass -P taxi={_other(taxi)}."
            )
        if not _castable(found.field(name).type, column.type):
            raise TripError(
                f"Column {column.name!r} has type {found.field(name).type}; "
                f"it must hold values of {column.type}. Mend the file."
            )
        matched[name] = column
    return {name: matched[name] for name in found.names if name in matched}


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

    def take(self, rows: np.ndarray) -> "Trips":
        """Select rows by index or mask, in that order."""
        return Trips(*(getattr(self, field.name)[rows] for field in fields(self)))


def to_trips(table: pa.Table) -> Trips:
    """Turn a table with the columns of TRIPS into arrays."""
    return Trips(*(table.column(name).to_numpy() for name in TRIPS.names))


def _castable(found: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if types.is_string(found) or types.is_large_string(found) or types.is_null(found):
        return True  # text may hold anything; its values are checked when they are cast
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(found) or types.is_date(found))
    return bool(types.is_integer(found) or types.is_floating(found) or types.is_decimal(found))


def _other(taxi: str) -> str:
    return "yellow" if taxi == "green" else "green"
