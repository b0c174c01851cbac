"""Columns of a trip with their types and units, and which a model reads; each defined once."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from . import TripError

N_ZONES = 266  # TLC ids are 1..265; 0 stands for an id that the TLC does not have
MAX_MILES = 60.0  # a longer metered distance is a fault of the meter
# a shorter ride is a cancelled one, a longer one a meter left running (the course's bounds)
MIN_MINUTES, MAX_MINUTES = 1, 60
# trips processed at a time if all would take too much memory; encoded, a batch takes 32 MiB
BATCH_ROWS = 1 << 18

# the trips that preprocess writes and every model is trained on
TRIPS = pa.schema(
    [
        pa.field("pickup_at", pa.timestamp("us"), nullable=False),  # New York local time
        # TLC zone 1..265; 264 and 265 are unknown, 0 is missing in files that may lack zones
        pa.field("pickup_zone", pa.int32(), nullable=False),
        pa.field("dropoff_zone", pa.int32(), nullable=False),
        pa.field("distance_miles", pa.float64()),  # as metered; <= 0 or absurd values are kept
        pa.field("trip_minutes", pa.float64(), nullable=False),  # the target
    ]
)


# inputs of a model: role -> whether a caller must send it. Nothing from after the drop-off is among
# them, and the planned distance is optional
INPUTS: Mapping[str, bool] = {
    "pickup_at": True,
    "pickup_zone": True,
    "dropoff_zone": True,
    "distance_miles": False,
}
ZONES = ("pickup_zone", "dropoff_zone")


class RawColumn(NamedTuple):
    """One column of a TLC file that is read."""

    name: str  # as the TLC spells it
    role: str  # its name in this code
    type: pa.DataType  # to which its values must be castable
    is_required: bool = True  # False: files of some years lack it
    old_name: str = ""  # the column that older files have in its place

    def spellings(self) -> list[str]:
        """List its possible names in lower case, the current one first."""
        return [name.lower() for name in (self.name, self.old_name) if name]


def _common_columns(pickup_at: str, dropoff_at: str, *zones: str) -> list[RawColumn]:
    """Make the columns that every file has, from their names."""
    times = zip((pickup_at, dropoff_at), ("pickup_at", "dropoff_at"), strict=True)
    return [
        *(RawColumn(name, role, pa.timestamp("us")) for name, role in times),
        *(RawColumn(name, role, pa.int32()) for name, role in zip(zones, ZONES, strict=True)),
    ]


def _cab_columns(prefix: str) -> list[RawColumn]:
    """Make the columns of metered cabs, whose files differ only in a prefix."""
    pickup_at, dropoff_at = (f"{prefix}_{end}_datetime" for end in ("pickup", "dropoff"))
    miles = RawColumn("trip_distance", "distance_miles", pa.float64())
    return [*_common_columns(pickup_at, dropoff_at, "PULocationID", "DOLocationID"), miles]


class Taxi(NamedTuple):
    """All that is specific to one kind of trips; taxi/simulated_files.py simulates their files."""

    singular: str  # one trip, in words
    plural: str  # several, in words
    columns: Sequence[RawColumn]
    first_month: str  # YYYY-MM, from which the TLC's own files have trips that count
    zones_are_optional: bool = False  # True: trips without zones count, with zones unknown
    limits: Sequence[str] = ()  # of the use of their models, besides those of all models


# first word of a file's name -> its kind of trips; docs/trips.md explains how columns are read
TAXIS: Mapping[str, Taxi] = {
    "green": Taxi(
        "a green taxi trip", "green taxi trips", _cab_columns("lpep"), first_month="2014-01"
    ),
    "yellow": Taxi(
        "a yellow taxi trip", "yellow taxi trips", _cab_columns("tpep"), first_month="2011-01"
    ),
    "fhvhv": Taxi(
        "an app ride",
        "app rides",
        [
            *_common_columns("pickup_datetime", "dropoff_datetime", "PULocationID", "DOLocationID"),
            RawColumn("trip_miles", "distance_miles", pa.float64(), is_required=False),
            RawColumn("trip_time", "trip_seconds", pa.float64(), is_required=False),
            RawColumn(
                "shared_match_flag", "is_shared", pa.bool_(), is_required=False, old_name="SR_Flag"
            ),
        ],
        first_month="2019-02",
        limits=("Rides that are shared with others who booked by themselves take other ways.",),
    ),
    "fhv": Taxi(
        "a car-service ride",
        "car-service rides",
        [
            *_common_columns("pickup_datetime", "dropOff_datetime", "PUlocationID", "DOlocationID"),
            RawColumn("SR_Flag", "is_shared", pa.bool_(), is_required=False),
        ],
        first_month="2017-01",
        zones_are_optional=True,
        limits=(
            "Its trips have no distance, and most no pickup zone: what it says is an average of "
            "very different rides.",
            "Rides that are shared with others who booked by themselves take other ways.",
        ),
    ),
}


def select_taxi(taxi: str) -> Taxi:
    """Look up a kind of trips.

    Raises:
        TripError: taxi is not a key of TAXIS.
    """
    if taxi not in TAXIS:
        raise TripError(f"Unknown taxi {taxi!r}. Choose from {sorted(TAXIS)}.")
    return TAXIS[taxi]


def raw_columns(taxi: str) -> tuple[RawColumn, ...]:
    """List the columns read from a TLC file; every other one is ignored.

    Raises:
        TripError: taxi is not a key of TAXIS.
    Source: TLC trip-record data dictionaries.
    """
    return tuple(select_taxi(taxi).columns)


def input_names(taxi: str) -> dict[str, str]:
    """List a model's inputs: role of INPUTS -> the TLC's column name.

    Raises:
        TripError: taxi is not a key of TAXIS.
    """
    return {column.role: column.name for column in raw_columns(taxi) if column.role in INPUTS}


def input_requirements(taxi: str) -> dict[str, bool]:
    """List a model's inputs: role of INPUTS that a taxi has -> whether a caller must send it."""
    left_out = ZONES if select_taxi(taxi).zones_are_optional else ()
    return {role: INPUTS[role] and role not in left_out for role in input_names(taxi)}


def has_distance_column(taxi: str) -> bool:
    """Whether the files of a taxi have distances."""
    return "distance_miles" in input_names(taxi)


def taxis_with_columns(names: Collection[str]) -> list[str]:
    """List the taxis whose files may have these columns, whatever their case or stray spaces."""
    present = {name.strip().lower() for name in names}
    return [
        taxi
        for taxi, entry in TAXIS.items()
        if {column.name.lower() for column in entry.columns if column.is_required} <= present
    ]


def zone_or_0(zone: np.ndarray) -> np.ndarray:
    """Replace ids that the TLC does not have with 0, [n] of the same type."""
    return np.where((zone > 0) & (zone < N_ZONES), zone, 0)


@dataclass(frozen=True)
class Trips:
    """Trips as arrays, n rows each; what features and models work on."""

    pickup_at: np.ndarray  # datetime64[us]
    pickup_zone: np.ndarray  # int32
    dropoff_zone: np.ndarray  # int32
    distance_miles: np.ndarray  # float64, NaN where missing
    trip_minutes: np.ndarray  # float64; NaN for future trips

    def __len__(self) -> int:
        """Count the trips."""
        return len(self.pickup_at)

    def take(self, rows: np.ndarray | slice) -> "Trips":
        """Select rows by index, mask or slice, in that order."""
        return Trips(*(getattr(self, field.name)[rows] for field in fields(self)))

    def batches(self) -> Iterator["Trips"]:
        """Cut the trips into batches of BATCH_ROWS, as views."""
        starts = range(0, max(len(self), 1), BATCH_ROWS)
        return (self.take(slice(start, start + BATCH_ROWS)) for start in starts)

    def without_distance(self) -> "Trips":
        """Return the same trips with all distances missing."""
        return replace(self, distance_miles=np.full(len(self), np.nan))


def clean_miles(trips: Trips) -> np.ndarray:
    """Return the distances in miles, float64 [n], NaN where they are not in (0, MAX_MILES]."""
    return np.where(is_plausible_distance(trips.distance_miles), trips.distance_miles, np.nan)


def is_plausible_distance(miles: np.ndarray) -> np.ndarray:
    """Tell which of n numbers are plausible distances, in (0, MAX_MILES], bool [n]."""
    with np.errstate(invalid="ignore"):
        return (miles > 0) & (miles <= MAX_MILES)


def to_trips(table: pa.Table) -> Trips:
    """Convert a table with the columns of TRIPS, n rows, to arrays."""
    return read_trips(table.to_batches(), len(table))


def read_trips(batches: Iterable[pa.RecordBatch], n_trips: int) -> Trips:
    """Convert batches with the columns of TRIPS, n_trips rows in all, to arrays as they arrive."""
    types = (field.type.to_pandas_dtype() for field in TRIPS)
    trips = Trips(*(np.empty(n_trips, kind) for kind in types))
    first = 0
    for batch in batches:
        rows = slice(first, first + len(batch))
        for name in TRIPS.names:
            values = batch.column(name).to_numpy(zero_copy_only=False)
            getattr(trips, name)[rows] = values
        first = rows.stop
    return trips
