"""Read raw trips as a caller sends them, or refuse them, naming column, row and value.

What a refusal quotes is short and printable, whatever was sent.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from reprlib import Repr
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from . import TripError
from .schema import (
    MAX_MILES,
    N_ZONES,
    ZONES,
    Trips,
    input_names,
    input_requirements,
    is_plausible_distance,
    zone_or_0,
)
from .values import read_times

MAX_LISTED = 10  # columns that a refusal lists, or rows of a column that get a warning
MAX_BITS = 1000  # a whole number of so many still fits into a float
MAX_ID = 1_000_000  # a larger one is an unknown zone
# no hour 24, which Python from 3.14 on reads as hour 0 of the next day
PLAIN_TIME_PATTERN = re.compile(r"\d{4}-\d\d-\d\d ([01]\d|2[0-3]):\d\d:\d\d", re.ASCII)
# suffix by which pandas, reading a csv, renames the second of two columns with one name
DUPLICATE_SUFFIX = re.compile(r"\.[0-9]+$")

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


def quote(value: Any) -> str:
    """Quote a value that was sent: in one line, without control characters, cut if long."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python refuses to print whole numbers of thousands of digits
        return f"a number of {value.bit_length()} bits"


def read_frame(frame: pd.DataFrame, taxi: str) -> Trips:
    """Read raw trips, as a caller sends them, into arrays.

    Args:
        frame: n rows with the TLC's columns: pickup time (text or timestamp), zone ids (number or
            text), and optionally the planned distance in miles, if this taxi's trips have one.
            Other columns are ignored.
        taxi: key of schema.TAXIS.
    Raises:
        TripError: names the column, the row counted from 0, and the value.
    """
    names, requirements = input_names(taxi), input_requirements(taxi)
    check_columns(
        frame.columns, {names[role]: is_required for role, is_required in requirements.items()}
    )
    distance = np.full(len(frame), np.nan)
    if (miles := names.get("distance_miles")) in frame.columns:
        distance = _finite_numbers(frame[miles], is_optional=True)
    pickup_zone, dropoff_zone = (
        _zones(frame[names[role]], is_optional=not requirements[role])
        if names[role] in frame.columns
        else np.zeros(len(frame), np.int32)
        for role in ZONES
    )
    return Trips(
        pickup_at=_times(frame[names["pickup_at"]]),
        pickup_zone=pickup_zone,
        dropoff_zone=dropoff_zone,
        distance_miles=distance,
        trip_minutes=np.full(len(frame), np.nan),
    )


def read_plain(records: Any, taxi: str) -> Trips | None:
    """Read plain raw trips from JSON as `read_frame` reads a frame, in a tenth of the time.

    A trip is plain if it has a time as text like 2021-01-31 17:45:00, existing zones as whole
    numbers, a plausible distance or null, and no other column.

    Args:
        records: of the request's JSON, whatever was sent.
        taxi: key of schema.TAXIS.
    Returns:
        The trips; None if there are none, or any of them is not plain.
    """
    names = input_names(taxi)
    expected = set(names.values())
    if type(records) is not list or not records:
        return None
    if not all(type(row) is dict and row.keys() == expected for row in records):
        return None
    sent = {role: [row[name] for row in records] for role, name in names.items()}
    pickup_at = _plain_times(sent["pickup_at"])
    pickup_zone, dropoff_zone = (_plain_zones(sent[role]) for role in ZONES)
    miles = _plain_miles(sent.get("distance_miles", [None] * len(records)))
    if pickup_at is None or pickup_zone is None or dropoff_zone is None or miles is None:
        return None
    return Trips(pickup_at, pickup_zone, dropoff_zone, miles, np.full(len(records), np.nan))


def _plain_times(sent: list[Any]) -> np.ndarray | None:
    if not all(type(text) is str and PLAIN_TIME_PATTERN.fullmatch(text) for text in sent):
        return None
    try:
        return np.array([datetime.fromisoformat(text) for text in sent], "datetime64[us]")
    except ValueError:
        return None


def _plain_zones(sent: list[Any]) -> np.ndarray | None:
    is_plain = all(type(zone) is int and 0 < zone < N_ZONES for zone in sent)
    return np.array(sent, np.int32) if is_plain else None


def _plain_miles(sent: list[Any]) -> np.ndarray | None:
    kinds = (type(None), int, float)
    if not all(
        type(value) in kinds and (value is None or 0 < value <= MAX_MILES) for value in sent
    ):
        return None
    return np.array(sent, np.float64)


def list_warnings(frame: pd.DataFrame, taxi: str) -> list[str]:
    """List the zones and distances of n raw trips that were sent but answered as unknown.

    Args:
        frame: n rows that `read_frame` has accepted.
        taxi: key of schema.TAXIS; zones that its trips need not have are not checked.
    Returns:
        A line for each, at most MAX_LISTED per column and one that counts the rest.
    """
    names = input_names(taxi)
    required_zones = [names[role] for role in ZONES if input_requirements(taxi)[role]]
    warnings = [warning for name in required_zones for warning in _zone_warnings(frame[name])]
    return warnings + _distance_warnings(frame, names.get("distance_miles"))


def _zone_warnings(zones: pd.Series) -> list[str]:
    unused = np.flatnonzero(zone_or_0(_to_numbers(zones)) == 0)
    reason = f"is no zone of 1 to {N_ZONES - 1}; answered as unknown"
    return _warn_of_rows(zones, unused, reason, f"were answered as if {zones.name!r} were unknown")


def _distance_warnings(frame: pd.DataFrame, name: str | None) -> list[str]:
    if name not in frame.columns:
        return []
    miles = _to_numbers(frame[name])
    unused = np.flatnonzero(~np.isnan(miles) & ~is_plausible_distance(miles))
    reason = f"is no distance above 0 and up to {MAX_MILES:g} miles; answered without one"
    return _warn_of_rows(frame[name], unused, reason, "were answered without their distance")


def _warn_of_rows(
    values: pd.Series, unused: np.ndarray, reason: str, consequence: str
) -> list[str]:
    warnings = [
        f"Row {row}, column {values.name!r}: {_quote_at(values, row)} {reason}."
        for row in unused[:MAX_LISTED]
    ]
    if len(unused) > MAX_LISTED:
        warnings.append(f"{len(unused) - MAX_LISTED} more rows {consequence}.")
    return warnings


def check_columns(columns: Iterable[Any], required: Mapping[str, bool]) -> None:
    """Refuse a column that is missing, sent twice, or differs from its name in case or spaces.

    Args:
        columns: names of the columns that were sent.
        required: name -> whether the column is required.
    Raises:
        TripError: names the column.
    """
    sent = list(columns)
    normalised = [DUPLICATE_SUFFIX.sub("", str(column).strip().lower()) for column in sent]
    for name, is_required in required.items():
        same_name = [
            column for column, text in zip(sent, normalised, strict=True) if text == name.lower()
        ]
        if len(same_name) > 1:
            raise TripError(f"Column {name!r} is there {len(same_name)} times. Send it once.")
        if same_name and same_name[0] != name:
            raise TripError(f"Column {quote(same_name[0])} is not read. Call it {name!r}.")
        if is_required and not same_name:
            more = f" and {len(sent) - MAX_LISTED} more" if len(sent) > MAX_LISTED else ""
            seen = ", ".join(map(quote, sent[:MAX_LISTED]))
            raise TripError(f"Column {name!r} is missing. Columns seen: [{seen}]{more}.")


def _times(values: pd.Series) -> np.ndarray:
    is_typed = pd.api.types.is_datetime64_any_dtype(values.dtype)
    raw = values if is_typed else [_time_text(value) for value in values.tolist()]
    times = read_times(pa.array(raw, None if is_typed else pa.string(), from_pandas=True)).values
    advice = "send a date and time of New York like 2021-01-31 17:45:00"
    _refuse(values, times.is_null().to_numpy(zero_copy_only=False), advice)
    return times.to_numpy(zero_copy_only=False)


def _time_text(value: Any) -> str | None:
    """Write a time as text; None for anything else, such as a number, whose unit is unknown."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return str(value) if isinstance(value, str | np.datetime64) else None


def _zones(values: pd.Series, *, is_optional: bool) -> np.ndarray:
    numbers = _finite_numbers(values, is_optional=is_optional)
    numbers = np.where(np.isnan(numbers), 0, numbers)
    _refuse(values, numbers != np.floor(numbers), "send a TLC zone id like 74")
    # an id too large for the type is an unknown zone, as 0 is
    return np.where(np.abs(numbers) < MAX_ID, numbers, 0).astype(np.int32)


def _finite_numbers(values: pd.Series, *, is_optional: bool) -> np.ndarray:
    if values.dtype.kind in "mM":  # pandas would convert times to nanoseconds
        _refuse(values, np.ones(len(values), bool), "send a number")
    numbers = _to_numbers(values)
    wrong = ~np.isfinite(numbers)
    if is_optional:
        wrong &= values.notna().to_numpy()
    _refuse(values, wrong, "send a number")
    return numbers


def _to_numbers(values: pd.Series) -> np.ndarray:
    """Convert n values, numbers or text, to float64 [n]; NaN where one is not a number."""
    if (misread := _is_misread_by_pandas(values)).any():
        values = values.astype(object).mask(misread)
    return pd.to_numeric(values, errors="coerce").to_numpy(np.float64)


def _is_misread_by_pandas(values: pd.Series) -> np.ndarray:
    """Tell which of n values pandas would misread or fail on, such as true, 1j, 10**400."""
    if values.dtype != object:
        return np.full(len(values), values.dtype.kind in "bc")
    kinds = bool, np.bool_, complex, np.complexfloating
    return np.array(
        [
            isinstance(value, kinds) or (isinstance(value, int) and value.bit_length() > MAX_BITS)
            for value in values
        ],
        bool,
    )


def _refuse(values: pd.Series, wrong: np.ndarray, advice: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        seen = _quote_at(values, rows[0])
        raise TripError(f"Row {rows[0]}, column {values.name!r}: got {seen}; {advice}.")


def _quote_at(values: pd.Series, row: int) -> str:
    return quote(values.iloc[[row]].tolist()[0])  # Python's own type: 1.5, not np.float64(1.5)
