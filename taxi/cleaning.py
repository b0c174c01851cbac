"""Which trips count, and why the others do not."""

from datetime import datetime
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from . import TripError
from .schema import MAX_MINUTES, MIN_MINUTES, TRIPS, match_columns

MINUTE_US = 60_000_000

# a dropped row counts under the first of these that holds for it
REASONS = (
    "time missing",
    "zone missing",
    "pickup outside the month",
    f"shorter than {MIN_MINUTES} min",
    f"longer than {MAX_MINUTES} min",
)


class Cleaned(NamedTuple):
    """What became of a batch of raw rows."""

    trips: pa.RecordBatch  # columns of schema.TRIPS, m <= n rows, original order
    dropped: dict[str, int]  # reason -> rows, every reason of REASONS present


def clean(batch: pa.RecordBatch, *, taxi: str, month: str) -> Cleaned:
    """Keep the trips a rider could have taken in this month.

    Args:
        batch: n raw rows with the TLC's columns for this taxi; others are ignored.
        taxi: green or yellow.
        month: YYYY-MM, the month whose file this is.
    Returns:
        The kept rows and how many were dropped for which reason.
    Raises:
        TripError: a column is missing or of another type, or a value cannot be read as its type.
    Source: TLC trip-record data dictionary; the 1..60 min bound, both ends in: course notebook.
    """
    columns = cast_columns(batch, taxi)
    start, end = (microseconds(bound) for bound in month_bounds(month))
    pickup, dropoff = (columns[name].cast(pa.int64()) for name in ("pickup_at", "dropoff_at"))
    duration = pc.subtract(dropoff, pickup)
    # each test is false for a row to drop under the reason at the same place in REASONS
    tests = (
        pc.is_valid(duration),
        pc.and_(pc.is_valid(columns["pickup_zone"]), pc.is_valid(columns["dropoff_zone"])),
        _between(pickup, start, end - 1),
        pc.greater_equal(duration, MIN_MINUTES * MINUTE_US),
        pc.less_equal(duration, MAX_MINUTES * MINUTE_US),
    )
    kept, dropped = _apply(tests, batch.num_rows)
    columns["trip_minutes"] = pc.divide(duration.cast(pa.float64()), float(MINUTE_US))
    trips = pa.RecordBatch.from_arrays([columns[name] for name in TRIPS.names], TRIPS.names)
    if any(dropped.values()):
        trips = trips.filter(kept)
    return Cleaned(trips.cast(TRIPS), dropped)


def month_bounds(month: str) -> tuple[datetime, datetime]:
    """First instant of a month YYYY-MM and of the next one, New York local time."""
    start = datetime.strptime(month, "%Y-%m")
    years, months = divmod(start.month, 12)
    return start, datetime(start.year + years, months + 1, 1)


def cast_columns(
    batch: pa.RecordBatch, taxi: str, *, may_miss: frozenset[str] = frozenset()
) -> dict[str, pa.Array]:
    """Read raw columns as the types they must have: role -> values, null where there are none.

    Raises:
        TripError: a column is missing or of another type, or a value cannot be read as its type.
    """
    columns = {}
    for name, wanted in match_columns(batch.schema, taxi, may_miss=may_miss).items():
        # nanoseconds may be cut off a time; a zone or a distance must not lose anything
        safe = not pa.types.is_timestamp(wanted.type)
        try:
            columns[wanted.role] = pc.cast(batch.column(name), wanted.type, safe=safe)
        except pa.ArrowInvalid as error:
            raise TripError(f"Column {name!r}: {error}. Mend the file.") from error
    return columns


def _apply(tests: tuple[pa.Array, ...], n_rows: int) -> tuple[pa.Array, dict[str, int]]:
    """Join the tests in order, counting how many rows each one is the first to refuse."""
    kept, n_kept, dropped = None, n_rows, {}
    for reason, test in zip(REASONS, tests, strict=True):
        # a null here is a row that an earlier reason has refused
        kept = test if kept is None else pc.and_kleene(kept, test)
        n_left = pc.sum(kept).as_py() or 0
        dropped[reason], n_kept = n_kept - n_left, n_left
    return kept, dropped


def _between(values: pa.Array, low: int, high: int) -> pa.Array:
    return pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))


def microseconds(instant: datetime) -> int:
    """Count from 1970 on, as timestamps in a file do."""
    return int((instant - datetime(1970, 1, 1)).total_seconds()) * 1_000_000
