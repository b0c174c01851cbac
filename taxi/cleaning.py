"""Clean raw rows: which of them are trips that count, and why the others are dropped."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import TripError
from .matching import match_columns, shorten
from .schema import MAX_MINUTES, MIN_MINUTES, TRIPS, ZONES, RawColumn, raw_columns, select_taxi
from .values import (
    ReadValues,
    ambiguous_readings,
    decode_text,
    read_flags,
    read_numbers,
    read_times,
    read_zones,
    stated_unit,
)

SECOND_US, MINUTE_US = 1_000_000, 60_000_000
TIMES = ("pickup_at", "dropoff_at")
MAX_SECONDS = 1e9  # cap of stated durations: absurd anyway, and differences fit in 64 bits

UNREADABLE, OUTSIDE_MONTH = "unreadable value", "pickup outside the month"


class AmbiguousError(TripError):
    """A value with two possible readings; `row` is its row, counted from 0."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class Cleaned(NamedTuple):
    """What became of a batch of raw rows."""

    trips: pa.RecordBatch  # columns of schema.TRIPS, m <= n rows, original order
    dropped: dict[str, int]  # reason -> rows; holds every reason of `drop_reasons`


class DropRule(NamedTuple):
    """A reason to drop rows, by a column that only the files of some taxis have."""

    reason: str
    keeps: Callable[[Mapping[str, pa.Array]], pa.Array]  # columns of n rows -> which to keep, bool


class RawRows(NamedTuple):
    """A batch of n raw rows, as read."""

    columns: dict[str, pa.Array]  # role -> [n] of the required type, null if missing or unreadable
    # role -> bool [n]: value is unreadable; only roles with such
    unreadable_masks: dict[str, np.ndarray]
    unreadable: str  # description of the first such value; empty if there is none

    def readable(self, roles: Collection[str] | None = None) -> np.ndarray:
        """Tell in which rows all values, or those of some roles, are readable, bool [n]."""
        n_rows = len(self.columns["pickup_at"])
        masks = [
            mask for role, mask in self.unreadable_masks.items() if roles is None or role in roles
        ]
        return ~np.logical_or.reduce([np.zeros(n_rows, bool), *masks])


def clean(batch: pa.RecordBatch, *, taxi: str, month: str) -> Cleaned:
    """Keep the trips a rider could have taken in this month.

    Args:
        batch: n raw rows with the TLC's columns for this taxi; others are ignored.
        taxi: key of schema.TAXIS.
        month: YYYY-MM, the month whose file this is.
    Returns:
        The kept rows and how many were dropped for which reason.
    Raises:
        TripError: a column is missing or has the wrong type, or a value is ambiguous.
    Source: TLC trip-record data dictionary; the bound of 1..60 min, inclusive: course notebook;
        docs/trips.md.
    """
    rows = read_columns(batch, taxi)
    columns = rows.columns
    zones_are_optional = select_taxi(taxi).zones_are_optional
    if zones_are_optional:
        columns |= {role: missing_zone_to_0(columns[role]) for role in ZONES}
    start, end = (microseconds(bound) for bound in month_bounds(month))
    duration = durations(columns)
    # each test is false for rows to drop, for the reason at the same place in REASONS
    tests = (
        _have_values(rows, TIMES),
        _have_values(rows, ZONES),
        pa.array(rows.readable()),
        pc.and_(
            *(pc.greater_equal(columns[name], 0 if zones_are_optional else 1) for name in ZONES)
        ),
        _between(columns["pickup_at"].cast(pa.int64()), start, end - 1),
        *kept_by_rules(columns),
        pc.greater_equal(duration, MIN_MINUTES * MINUTE_US),
        pc.less_equal(duration, MAX_MINUTES * MINUTE_US),
    )
    named = dict(zip(REASONS, tests, strict=True))
    kept, dropped = _combine_tests(
        {reason: named[reason] for reason in drop_reasons(taxi)}, batch.num_rows
    )
    columns["trip_minutes"] = to_minutes(duration)
    for column in TRIPS:
        columns.setdefault(column.name, pa.nulls(batch.num_rows, column.type))
    trips = pa.RecordBatch.from_arrays([columns[name] for name in TRIPS.names], TRIPS.names)
    if any(dropped.values()):
        trips = trips.filter(kept)
    return Cleaned(trips.cast(TRIPS), dropped)


def drop_reasons(taxi: str) -> tuple[str, ...]:
    """List the reasons, among REASONS, for which rows of a taxi may be dropped."""
    roles = {column.role for column in raw_columns(taxi)}
    inapplicable = {rule.reason for role, rule in RULES.items() if role not in roles}
    return tuple(reason for reason in REASONS if reason not in inapplicable)


def missing_zone_to_0(zone: pa.Array) -> pa.Array:
    """Replace unknown zones [n], missing or below 1, with 0."""
    return pc.max_element_wise(zone, pa.scalar(0, zone.type))  # which ignores nulls


def durations(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Compute the durations of n trips, microseconds, int64 [n]; null where unknown.

    Seconds that a row states take precedence over its times; `_is_consistent` compares the two.
    """
    from_times = _pickup_to_dropoff(columns)
    return (
        pc.coalesce(_stated_duration(columns), from_times)
        if "trip_seconds" in columns
        else from_times
    )


def to_minutes(duration: pa.Array) -> pa.Array:
    """Convert microseconds, int64 [n], to minutes; over millennia a few microseconds are lost."""
    return pc.divide(duration.cast(pa.float64(), safe=False), float(MINUTE_US))


def kept_by_rules(columns: Mapping[str, pa.Array]) -> list[pa.Array]:
    """List for each rule which of n rows it keeps, bool [n]; all if its column is absent."""
    all_rows = pa.array(np.ones(len(columns["pickup_at"]), bool))
    return [rule.keeps(columns) if role in columns else all_rows for role, rule in RULES.items()]


def _is_not_shared(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Tell which of n rides were not shared with riders who booked separately."""
    return pc.invert(columns["is_shared"])


def _is_consistent(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Tell which of n trips state no seconds, or those between their times to within a minute."""
    difference = pc.abs(pc.subtract(_stated_duration(columns), _pickup_to_dropoff(columns)))
    return pc.less_equal(difference, MINUTE_US).fill_null(True)


def _pickup_to_dropoff(columns: Mapping[str, pa.Array]) -> pa.Array:
    pickup, dropoff = (columns[name].cast(pa.int64()) for name in TIMES)
    return pc.subtract(dropoff, pickup)


def _stated_duration(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Return the durations that n rows state, microseconds, int64 [n]; null where none."""
    seconds = columns["trip_seconds"]
    is_stated = pc.is_finite(seconds)
    seconds = pc.if_else(is_stated, seconds, pa.scalar(None, pa.float64()))
    in_bounds = pc.less_equal(pc.abs(seconds), MAX_SECONDS)
    seconds = pc.if_else(in_bounds, seconds, MAX_SECONDS)
    return pc.round(pc.multiply(seconds, float(SECOND_US))).cast(pa.int64())


def first_unreadable(batch: pa.RecordBatch, taxi: str) -> str:
    """Describe the first unreadable value of raw rows; empty if there is none."""
    return read_columns(batch, taxi).unreadable


def count_months(batch: pa.RecordBatch, taxi: str) -> dict[str, int]:
    """Count raw rows by the month of their pickup."""
    pickup = read_columns(batch, taxi).columns["pickup_at"].drop_null().to_numpy()
    months, counts = np.unique(pickup.astype("datetime64[M]"), return_counts=True)
    return dict(zip(months.astype(str).tolist(), counts.tolist(), strict=True))


def month_bounds(month: str) -> tuple[datetime, datetime]:
    """Return the first instants of a month YYYY-MM and of the next, New York local time."""
    start = datetime.strptime(month, "%Y-%m")
    years, months = divmod(start.month, 12)
    return start, datetime(start.year + years, months + 1, 1)


def read_columns(
    batch: pa.RecordBatch, taxi: str, *, optional_roles: frozenset[str] = frozenset()
) -> RawRows:
    """Read raw columns as the types that they must have.

    Raises:
        TripError: a column is missing or has the wrong type, or a value is ambiguous.
    """
    columns, unreadable_masks, unreadable = {}, {}, ""
    for name, raw_column in match_columns(
        batch.schema, taxi, optional_roles=optional_roles
    ).items():
        values, field = batch.column(name), batch.schema.field(name)
        columns[raw_column.role], mask = _read_column(values, field, raw_column)
        if mask is not None:
            unreadable_masks[raw_column.role] = mask
            unreadable = unreadable or _describe_unreadable(
                name, values.filter(pa.array(mask)), raw_column
            )
            _refuse_ambiguous(name, values, mask)
    return RawRows(columns, unreadable_masks, unreadable)


def _read_column(values: pa.Array, field: pa.Field, raw_column: RawColumn) -> ReadValues:
    if raw_column.role in TIMES:
        return read_times(values, stated_unit(field))
    if pa.types.is_boolean(raw_column.type):
        return read_flags(values)
    return read_zones(values) if raw_column.role in ZONES else read_numbers(values)


def _describe_unreadable(name: str, values: pa.Array, raw_column: RawColumn) -> str:
    (value,) = decode_text(values[:1]).to_pylist()
    return f"column {name!r} has {shorten(repr(value))}, which is no {raw_column.type}"


def _refuse_ambiguous(name: str, values: pa.Array, unreadable: np.ndarray) -> None:
    """Refuse a column with an ambiguous text.

    Raises:
        AmbiguousError: names the column, the text and both readings.
    """
    rows = np.flatnonzero(unreadable)
    texts = decode_text(values.filter(pa.array(unreadable))).to_pylist()
    for row, text in zip(rows.tolist(), texts, strict=True):
        if isinstance(text, str) and (readings := ambiguous_readings(text)):
            seen, options = shorten(repr(text.strip())), " or ".join(readings)
            raise AmbiguousError(
                f"column {name!r} has {seen}, which may be {options}. "
                "Write times as 2021-01-31 17:45:00 and numbers as 1234.5.",
                row,
            )


def _have_values(rows: RawRows, roles: tuple[str, ...]) -> pa.Array:
    """Tell which of n rows have a value, readable or not, in each of some columns."""
    return pc.and_(*(_has_value(rows, role) for role in roles))


def _has_value(rows: RawRows, role: str) -> pa.Array:
    is_read, unreadable = rows.columns[role].is_valid(), rows.unreadable_masks.get(role)
    return is_read if unreadable is None else pc.or_(is_read, pa.array(unreadable))


def _combine_tests(tests: Mapping[str, pa.Array], n_rows: int) -> tuple[pa.Array, dict[str, int]]:
    """Combine the tests, and count for each the rows that it is the first to reject."""
    kept, n_kept, dropped = None, n_rows, {}
    for reason, test in tests.items():
        # a null can only be in a row that an earlier test has rejected
        kept = test if kept is None else pc.and_kleene(kept, test)
        n_left = pc.sum(kept).as_py() or 0
        dropped[reason], n_kept = n_kept - n_left, n_left
    return kept, dropped


def _between(values: pa.Array, low: int, high: int) -> pa.Array:
    return pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))


def microseconds(instant: datetime) -> int:
    """Convert an instant to microseconds since 1970, as timestamps in a file are counted."""
    return int((instant - datetime(1970, 1, 1)).total_seconds()) * 1_000_000


# role of a column -> the rule that drops rows by it; a new one is a line here
RULES: Mapping[str, DropRule] = {
    "is_shared": DropRule("shared with other riders", _is_not_shared),
    "trip_seconds": DropRule("durations at odds", _is_consistent),
}
# a dropped row counts under the first of these that applies
REASONS = (
    "time missing",
    "zone missing",
    UNREADABLE,
    "impossible zone",
    OUTSIDE_MONTH,
    *(rule.reason for rule in RULES.values()),
    f"shorter than {MIN_MINUTES} min",
    f"longer than {MAX_MINUTES} min",
)
