"""Find the columns to read in a file, whatever year and program it comes from."""

from collections.abc import Collection

import pyarrow as pa

from . import TripError
from .schema import TAXIS, RawColumn, raw_columns, select_taxi, taxis_with_columns
from .values import is_text, stated_unit

# files for months before 2016-07, as first published, have these instead of zones
COORDINATES = frozenset({"pickup_longitude", "start_lon", "dropoff_longitude", "end_lon"})
MAX_LISTED, MAX_CHARACTERS = 60, 60  # names in a message, characters of each


def match_columns(
    file: pa.Schema, taxi: str, *, optional_roles: frozenset[str] = frozenset()
) -> dict[str, RawColumn]:
    """Find each required column in a file, whatever its case or stray spaces.

    Args:
        file: its columns; others than the required ones are ignored.
        taxi: key of schema.TAXIS.
        optional_roles: roles that a file may lack.

    Returns:
        The column's name in the file -> the required column it is, in the file's order.
    Raises:
        TripError: a column is missing, or its type can never hold such values.
    """
    names_by_spelling: dict[str, list[str]] = {}
    for name in file.names:
        names_by_spelling.setdefault(name.strip().lower(), []).append(name)
    matched = {}
    for column in raw_columns(taxi):
        names = next(
            (names_by_spelling[name] for name in column.spellings() if name in names_by_spelling),
            [],
        )
        if len(names) > 1:
            raise TripError(
                f"Column {column.name!r} is there {len(names)} times: {quote_names(names)}. "
                "Leave one of them in the file."
            )
        if names:
            _check_type(file.field(names[0]), column, is_optional=column.role in optional_roles)
            matched[names[0]] = column
        elif column.is_required and column.role not in optional_roles:
            raise TripError(_missing_column_message(column.name, file.names, taxi))
    return {name: matched[name] for name in file.names if name in matched}


def quote_names(names: Collection[str]) -> str:
    """List names for a message, at most MAX_LISTED of them, as printable text."""
    quoted = [shorten(repr(name)) for name in names]
    return ", ".join(quoted[:MAX_LISTED]) + (", ..." if quoted[MAX_LISTED:] else "")


def shorten(text: str) -> str:
    """Cut a text that is too long for a message."""
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


def _missing_column_message(name: str, names: Collection[str], taxi: str) -> str:
    """Say that a column is missing, and the likely reason."""
    since = select_taxi(taxi).first_month
    if any(other.strip().lower() in COORDINATES for other in names):
        return (
            f"Column {name!r} is missing, and there are coordinates: a file as first published "
            f"for months before 2016-07. The TLC has since published those from {since} on as "
            "parquet with zones: pass -P source=tlc, or fetch them from there."
        )
    # unquoted, unless a name could garble the terminal
    is_plain = len(names) <= MAX_LISTED and all(
        len(n) <= MAX_CHARACTERS and n.isprintable() for n in names
    )
    seen = ", ".join(names) if is_plain else quote_names(names)
    return (
        f"Column {name!r} is missing. Columns seen: {seen}. "
        f"Check that these are {taxi} trips, of which the TLC's files have any that count since "
        f"{since}, or pass -P taxi={_other_taxis(taxi, names)}."
    )


def _check_type(field: pa.Field, column: RawColumn, *, is_optional: bool) -> None:
    """Refuse a column whose type can never hold what it should."""
    file_type = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_timestamp(column.type) and pa.types.is_date(file_type):
        raise TripError(
            f"Column {column.name!r} has type {file_type}: days without a time, which give no "
            "minutes. Use a file with times."
        )
    if pa.types.is_timestamp(column.type) and pa.types.is_integer(file_type):
        if not stated_unit(field):
            raise TripError(
                f"Column {column.name!r} has type {file_type}: seconds, or milli-, micro- or "
                "nanoseconds? Nobody says. Write it as timestamps, or state the unit in the "
                "column's metadata: unit=us."
            )
    elif is_optional and pa.types.is_floating(file_type):
        return  # pandas writes an empty column like this
    elif not _can_cast(file_type, column.type):
        raise TripError(
            f"Column {column.name!r} has type {field.type}; "
            f"it must hold values of {column.type}. Mend the file."
        )


def _can_cast(file_type: pa.DataType, required_type: pa.DataType) -> bool:
    types = pa.types
    if is_text(file_type) or types.is_null(file_type):
        return True  # text may hold anything; its values are checked when they are read
    if types.is_timestamp(required_type):
        return bool(types.is_timestamp(file_type))
    if types.is_boolean(file_type):
        return bool(types.is_boolean(required_type))
    return bool(
        types.is_integer(file_type) or types.is_floating(file_type) or types.is_decimal(file_type)
    )


def _other_taxis(taxi: str, names: Collection[str]) -> str:
    """Name the other taxis whose files may have such columns, or all others if there are none."""
    others = [other for other in taxis_with_columns(names) if other != taxi]
    *some, last = others or [other for other in TAXIS if other != taxi]
    return f"{', '.join(some)} or {last}" if some else last
