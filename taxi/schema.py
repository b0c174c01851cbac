"""Column names, types and units of a trip, and which of them a model reads: each said once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from . import TripError
from .values import is_text, stated_unit

# the prefix of the two time columns is all that differs between the taxis' files
PREFIXES: Mapping[str, str] = {"green": "lpep", "yellow": "tpep"}

N_ZONES = 266  # TLC ids are 1..265; 0 stands for an id that the TLC does not have
# what files before 2016-07 held first, instead of zones
COORDINATES = frozenset({"pickup_longitude", "start_lon", "dropoff_longitude", "end_lon"})
MAX_LISTED, MAX_SHOWN = 60, 60  # names in a message, characters of each
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
    spelled: dict[str, list[str]] = {}
    for name in file.names:
        spelled.setdefault(name.strip().lower(), []).append(name)
    matched = {}
    for column in raw_columns(taxi):
        names = spelled.get(column.name.lower(), [])
        if len(names) > 1:
            raise TripError(
                f"Column {column.name!r} is there {len(names)} times: {quoted(names)}. "
                "Leave one of them in the file."
            )
        if names:
            _check_type(file.field(names[0]), column)
            matched[names[0]] = column
        elif column.role not in may_miss:
            raise TripError(_missing(column.name, file.names, taxi))
    return {name: matched[name] for name in file.names if name in matched}


def quoted(names: Collection[str]) -> str:
    """List names for a message, the first of many, each so that it can be seen."""
    shown = [shorten(repr(name)) for name in names]
    return ", ".join(shown[:MAX_LISTED]) + (", ..." if shown[MAX_LISTED:] else "")


def shorten(text: str) -> str:
    """Cut a text that is too long for a message."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _missing(name: str, names: Collection[str], taxi: str) -> str:
    """Say that a column is missing, and what may be the reason."""
    if any(other.strip().lower() in COORDINATES for other in names):
        return (
            f"Column {name!r} is missing, and there are coordinates: a file as first published "
            "for months before 2016-07. The TLC has since published the same month as "
            "parquet with zones: pass -P source=tlc, or fetch it from there."
        )
    # names as they are, where nothing in them would harm a terminal
    is_plain = len(names) <= MAX_LISTED and all(
        len(n) <= MAX_SHOWN and n.isprintable() for n in names
    )
    seen = ", ".join(names) if is_plain else quoted(names)
    return (
        f"Column {name!r} is missing. Columns seen: {seen}. "
        f"Check that these are {taxi} trips, or pass -P taxi={_other(taxi)}."
    )


def _check_type(field: pa.Field, column: RawColumn) -> None:
    """Refuse a column whose type can never hold what it should."""
    given = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_timestamp(column.type) and pa.types.is_date(given):
        raise TripError(
            f"Column {column.name!r} has type {given}: days without a time, which give no minutes. "
            "Use a file with times."
        )
    if pa.types.is_timestamp(column.type) and pa.types.is_integer(given):
        if not stated_unit(field):
            raise TripError(
                f"Column {column.name!r} has type {given}: seconds, or milli-, micro- or "
                "nanoseconds? Nobody says. Write it as timestamps, or state the unit in the "
                "column's metadata: unit=us."
            )
    elif not _castable(given, column.type):
        raise TripError(
            f"Column {column.name!r} has type {field.type}; "
            f"it must hold values of {column.type}. Mend the file."
        )


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
    return np.where(is_mileage(trips.distance_miles), trips.distance_miles, np.nan)


def is_mileage(miles: np.ndarray) -> np.ndarray:
    """Tell of n numbers which a trip's distance may be, bool [n]; NaN is none."""
    with np.errstate(invalid="ignore"):
        return (miles > 0) & (miles <= MAX_MILES)


def to_trips(table: pa.Table) -> Trips:
    """Convert a table with the columns of TRIPS, n rows, to arrays."""
    return Trips(*(table.column(name).to_numpy() for name in TRIPS.names))


def _castable(given: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if is_text(given) or types.is_null(given):
        return True  # text may hold anything; its values are looked at when they are read
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(given))
    return bool(types.is_integer(given) or types.is_floating(given) or types.is_decimal(given))


def _other(taxi: str) -> str:
    return "yellow" if taxi == "green" else "green"
