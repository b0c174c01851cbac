"""Read raw values in whatever form a file or a caller wrote them: times, zones, distances.

Training, scoring and serving read times with the same function, so that a file means the same
instants to all of them: New York local time, to which times with a zone are converted.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NEW_YORK = ZoneInfo("America/New_York")
HOUR_US = 3_600_000_000
# years 1 and 9999: times beyond are clipped to them, so that differences fit in 64 bits
EARLIEST_US, LATEST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
MAX_INT64 = 2**63 - 1
# years for which daylight saving time is looked up; no taxi drove in others
FIRST_HOUR, LAST_HOUR = -604_800, 1_139_000  # 1901 and 2099, hours since 1970
STANDARD_OFFSET_US = -5 * HOUR_US
MAX_OFFSET_MINUTES = 15 * 60  # largest offset from UTC, minutes
UNITS: Mapping[str, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}  # in microseconds; ns: _to_us
BLANKS_AND_QUOTES = " \t\r\n\v\f\u00a0\"'"
MISSING_TEXTS = (
    "",
    "\\n",
    "na",
    "n/a",
    "nan",
    "nat",
    "null",
    "none",
    "nil",
    "<na>",
    "#n/a",
    "-",
    "(null)",
)
FALSE_TEXTS = ("n", "no", "f", "false", "0", "0.0")
MIN_TIME_LENGTH, MAX_NUMBER_LENGTH = len("2021-01-27 22:17"), 64  # characters

_CLOCK = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,12}))?)?"
)
_ZONE = r"(?: ?(?P<zone>Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?))?"
# 2021-01-27 22:17:31, the same with T, slashes, fractions, and Z, UTC or an offset
_YEAR_FIRST = (
    rf"^(?P<year>\d{{4}})[-/](?P<month>\d{{1,2}})[-/](?P<day>\d{{1,2}})[Tt ] ?{_CLOCK}{_ZONE}$"
)
# 01/27/2021 10:17:31 PM, as the city's open-data portal writes it
_PORTAL = (
    r"^(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})[, ] ?"
    rf"{_CLOCK} ?(?P<half>[AaPp])\.?[Mm]\.?(?P<zone>)$"
)
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
# 27/01/2021 22:17 and 01/27/2021 22:17; 1,5 and 1,234
_DAY_OR_MONTH = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})\b")
_COMMA = re.compile(r"([+-]?\d+),(\d+)")


class ReadValues(NamedTuple):
    """A column of n values, as read."""

    values: pa.Array  # [n], null where missing or unreadable
    unreadable: np.ndarray | None  # bool [n], a value that cannot be read; None if there is none


def read_times(values: pa.Array, unit: str | None = None) -> ReadValues:
    """Read times as New York local timestamps in microseconds; finer digits are cut off.

    Args:
        values: timestamps of any unit and zone, whole numbers of a stated unit, or text. Values of
            another type are unreadable, except NaN, as in an empty column, which is missing.
        unit: of whole numbers counted since 1970: s, ms, us or ns.
    """
    values = decode_text(values)
    if is_text(values.type):
        return _text_times(values)
    zone = None
    if pa.types.is_timestamp(values.type):
        unit, zone = values.type.unit, values.type.tz
    elif not pa.types.is_integer(values.type):
        unreadable = _mask_or_none(pc.invert(values.is_null(nan_is_null=True)))
        return ReadValues(pa.nulls(len(values), pa.timestamp("us")), unreadable)
    elif pa.types.is_uint64(values.type):  # may hold a -1 for missing, written as unsigned
        values = pc.min_element_wise(values, pa.scalar(MAX_INT64, pa.uint64()), skip_nulls=False)
    is_null = _is_null(values)
    us = _to_us(values.cast(pa.int64()).fill_null(0).to_numpy(), unit or "us")
    return ReadValues(_timestamps(utc_to_new_york(us) if zone else us, is_null), None)


def read_zones(values: pa.Array) -> ReadValues:
    """Read ids of zones as int32: whole numbers of any type, or text such as 74 or 74.0."""
    numbers, unreadable = read_numbers(values)
    floats = numbers.fill_null(np.nan).to_numpy()
    with np.errstate(invalid="ignore"):
        is_id = (floats == np.floor(floats)) & (floats >= -(2**31)) & (floats < 2**31)
    wrong = ~is_id & ~np.isnan(floats)
    if unreadable is not None:
        wrong |= unreadable
    ids = pa.array(np.where(is_id, floats, 0).astype(np.int32), mask=~is_id)
    return ReadValues(ids, wrong if wrong.any() else None)


def read_numbers(values: pa.Array) -> ReadValues:
    """Read numbers as float64; infinite ones count as missing."""
    values = decode_text(values)
    unreadable = None
    if is_text(values.type):
        texts = _trim(values)
        # "inf" is how programs write an infinite float, so it is readable and counts as missing too
        is_number = pc.and_(_is_short(texts), pc.match_substring_regex(texts, _NUMBER))
        is_infinite = pc.match_substring_regex(texts, r"^[+-]?[iI]nf(inity)?$")
        unreadable = _mask_or_none(pc.invert(pc.or_(is_number, is_infinite)))
        texts = pc.if_else(is_number, texts, pa.scalar(None, pa.string()))
        numbers = texts.cast(pa.float64())
    else:
        if pa.types.is_decimal(values.type):
            # cast directly, a 3 with nine decimals may become 3.0000000000000004: not a zone
            values = values.cast(pa.string())
        numbers = values.cast(pa.float64(), safe=False)
    is_infinite = pc.is_inf(numbers)
    if pc.any(is_infinite).as_py():
        numbers = pc.if_else(is_infinite, pa.scalar(None, pa.float64()), numbers)
    return ReadValues(numbers, unreadable)


def read_flags(values: pa.Array) -> ReadValues:
    """Read flags such as Y and N, or 1 and nothing: a value is true unless it means no."""
    values = decode_text(values)
    if not is_text(values.type):
        numbers = read_numbers(values).values
        return ReadValues(pc.greater(pc.abs(numbers), 0).fill_null(False), None)
    # a month has two or three distinct texts, repeated millions of times
    codes = pc.dictionary_encode(values)
    texts = _trim(codes.dictionary)
    is_false = pc.is_in(pc.utf8_lower(texts), pa.array(FALSE_TEXTS))
    flags = pc.and_(texts.is_valid(), pc.invert(is_false))
    return ReadValues(flags.take(codes.indices).fill_null(False), None)


def stated_unit(field: pa.Field) -> str | None:
    """Return the unit of time that a column's metadata states; None if it states none."""
    stated = (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace").strip().lower()
    return stated if stated in {*UNITS, "ns"} else None


def ambiguous_readings(text: str) -> tuple[str, str] | None:
    """Return the two possible readings of an ambiguous text; None if it is not ambiguous.

    Day first or month first: 03/04/2021 12:30. Decimals or thousands: 1,234.
    """
    if date := _DAY_OR_MONTH.match(text.strip(BLANKS_AND_QUOTES)):
        first, _, second, year = date.groups()
        if max(int(first), int(second)) > 12 or int(first) == int(second):
            # this date is clear, but others of its column may not be
            return "written month first", "day first"
        pairs = (first, second), (second, first)
        month_first, day_first = (f"{year}-{month:0>2}-{day:0>2}" for month, day in pairs)
        return f"{month_first} (month first)", f"{day_first} (day first)"
    if number := _COMMA.fullmatch(text.strip(BLANKS_AND_QUOTES)):
        return f"{number[1]}.{number[2]} (a decimal comma)", f"{number[1]}{number[2]}"
    return None


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are text, or bytes that may be text."""
    types = pa.types
    checks: tuple[Callable[[pa.DataType], bool], ...] = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
        types.is_binary_view,
        types.is_fixed_size_binary,
    )
    return any(check(kind) for check in checks)


def decode_text(values: pa.Array) -> pa.Array:
    """Decode values stored as a dictionary, as bytes, or as text that is not UTF-8."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not is_text(values.type):
        return values
    try:
        texts = values.cast(pa.string())
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raw = values.cast(pa.binary()).to_pylist()
        return pa.array([None if v is None else v.decode("utf-8", "replace") for v in raw])
    return texts


def utc_to_new_york(us: np.ndarray) -> np.ndarray:
    """Convert instants, microseconds since 1970 in UTC [n], to New York local time."""
    hours, rows = np.unique(us // HOUR_US, return_inverse=True)
    return us + np.array([_offset(hour) for hour in hours.tolist()], np.int64)[rows]


def _offset(hour: int) -> int:
    """Return New York's offset from UTC, microseconds, in an hour counted since 1970."""
    if not FIRST_HOUR <= hour <= LAST_HOUR:
        return STANDARD_OFFSET_US
    offset = datetime.fromtimestamp(hour * 3600, NEW_YORK).utcoffset()
    return STANDARD_OFFSET_US if offset is None else int(offset.total_seconds()) * 1_000_000


def _to_us(counts: np.ndarray, unit: str) -> np.ndarray:
    """Convert counts since 1970 to microseconds, within the years 1 to 9999."""
    if unit == "ns":
        return counts // 1_000
    us = UNITS[unit]
    return np.clip(counts, EARLIEST_US // us, LATEST_US // us) * us  # within 64 bits


def _timestamps(us: np.ndarray, is_null: np.ndarray) -> pa.Array:
    clipped = np.clip(us, EARLIEST_US, LATEST_US)
    return pa.array(clipped, pa.int64(), mask=is_null).cast(pa.timestamp("us"))


def _text_times(values: pa.Array) -> ReadValues:
    texts = _trim(values)
    if (plain_times := _plain_times(texts)) is not None:
        return ReadValues(plain_times, None)
    us, is_read = np.zeros(len(texts), np.int64), np.zeros(len(texts), bool)
    for pattern in (_YEAR_FIRST, _PORTAL):
        matches = _mask_or_none(pc.match_substring_regex(texts, pattern))
        if matches is not None:
            parts = pc.extract_regex(texts.filter(pa.array(matches)), pattern)
            us[matches], is_read[matches] = _parse_times(parts)
    unreadable = ~is_read & texts.is_valid().to_numpy(False)
    return ReadValues(_timestamps(us, ~is_read), unreadable if unreadable.any() else None)


def _plain_times(texts: pa.Array) -> pa.Array | None:
    """Read n texts in one cast; None if any is not of a form like 2021-01-27 22:17:31."""
    # a shorter text is a date or an hour without minutes, which the cast would accept
    if (shortest := pc.min(pc.utf8_length(texts)).as_py()) is None or shortest < MIN_TIME_LENGTH:
        return None
    try:
        texts[:1].cast(pa.timestamp("us"))  # fails early if the column has another form
        times = texts.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return None
    # pyarrow accepts a year 0, which no calendar has
    return times if pc.min(times.cast(pa.int64())).as_py() >= EARLIEST_US else None


def _parse_times(parts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Combine the parts of n times: microseconds in New York local time, and which are valid."""
    year, month, day, hour, minute, second = (
        _to_integers(parts, name) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    is_valid = (year >= 1) & (month >= 1) & (month <= 12) & (minute < 60) & (second < 60)
    if _has_part(parts, "half"):
        is_valid &= (hour >= 1) & (hour <= 12)
        is_pm = pc.equal(pc.utf8_lower(parts.field("half")), "p").to_numpy(False)
        hour = hour % 12 + 12 * is_pm
    months = ((year - 1970) * 12 + month - 1).astype("M8[M]")
    days = months.astype("M8[D]").astype(np.int64) + day - 1
    is_valid &= (hour < 24) & (day >= 1) & (days < (months + 1).astype("M8[D]").astype(np.int64))
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(parts.field("fraction"), 6, "0"), 0, 6)
    us = (days * 24 + hour) * HOUR_US + (minute * 60 + second) * 1_000_000
    us += fraction.cast(pa.int64()).to_numpy(False)
    zone = parts.field("zone")
    has_zone = pc.not_equal(zone, "").to_numpy(False)
    if has_zone.any():
        minutes, is_zone = _zone_minutes(zone)
        is_valid &= is_zone
        us = np.where(has_zone, utc_to_new_york(us - minutes * 60_000_000), us)
    return us, is_valid


def _zone_minutes(zones: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Read n offsets such as Z, -05 or -05:00: minutes ahead of UTC, and which are valid."""
    distinct = pc.dictionary_encode(zones)
    minutes, is_valid = [], []
    for text in distinct.dictionary.to_pylist():
        hours, rest = divmod(int(re.sub(r"\D", "", text).ljust(4, "0")), 100)
        offset = 60 * hours + rest
        minutes.append(-offset if text.startswith("-") else offset)
        is_valid.append(rest < 60 and offset <= MAX_OFFSET_MINUTES)
    rows = distinct.indices.to_numpy(False)
    return np.array(minutes, np.int64)[rows], np.array(is_valid, bool)[rows]


def _to_integers(parts: pa.Array, name: str) -> np.ndarray:
    """Read a part of n times as a whole number; 0 where absent."""
    texts = parts.field(name)
    zero = pa.scalar("0", pa.string())
    return pc.if_else(pc.equal(texts, ""), zero, texts).cast(pa.int64()).to_numpy(False)


def _has_part(parts: pa.Array, name: str) -> bool:
    return parts.type.get_field_index(name) >= 0


def _trim(texts: pa.Array) -> pa.Array:
    """Trim blanks and quotes, and replace words that mean a missing value with null."""
    texts = pc.utf8_trim(texts, BLANKS_AND_QUOTES)
    is_missing = pc.is_in(pc.utf8_lower(texts), pa.array(MISSING_TEXTS))
    return pc.if_else(is_missing, pa.scalar(None, pa.string()), texts)


def _is_short(texts: pa.Array) -> pa.Array:
    return pc.less_equal(pc.utf8_length(texts), MAX_NUMBER_LENGTH)


def _is_null(values: pa.Array) -> np.ndarray:
    return values.is_null().to_numpy(zero_copy_only=False)


def _mask_or_none(flags: pa.Array) -> np.ndarray | None:
    """Convert flags to bool [n], false where null; None if none is set."""
    mask = flags.fill_null(False).to_numpy(zero_copy_only=False)
    return mask if mask.any() else None
