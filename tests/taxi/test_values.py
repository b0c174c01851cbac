"""Parsing times and numbers: which texts can be read, to the last digit, and which cannot."""

from decimal import Decimal

import pyarrow as pa
import pytest

from taxi.schema import N_ZONES
from taxi.values import read_numbers, read_times, read_zones

WELL_WRITTEN = (
    *("2021-01-01 00:00:00", "2021-12-31 23:59:59", "2020-02-29 12:00:00", "0001-01-01 00:00:00"),
    *("01/31/2021 01:00:00 AM", "01/31/2021 12:59:59 PM"),
)
BEYOND = (
    *("2021-00-01 12:00:00", "2021-13-01 12:00:00", "2021-01-00 12:00:00", "2021-01-32 12:00:00"),
    *("2021-02-29 12:00:00", "2021-04-31 12:00:00"),
    "0000-01-01 12:00:00",
    *("2021-01-31 24:00:00", "2021-01-31 12:60:00", "2021-01-31 12:00:60"),
    *("01/31/2021 00:30:00 AM", "01/31/2021 13:30:00 PM"),
)


@pytest.mark.parametrize("text", [*WELL_WRITTEN, *BEYOND])
def test_a_time_is_read_up_to_the_ends_of_its_parts_and_no_further(text: str) -> None:
    values, unreadable = read_times(pa.array([text]))
    assert values.is_valid()[0].as_py() == (text in WELL_WRITTEN)
    assert (unreadable is not None and bool(unreadable[0])) == (text in BEYOND)


def test_midnight_and_noon_of_a_clock_of_twelve_hours_are_told_apart() -> None:
    texts = ["01/31/2021 12:30:00 AM", "01/31/2021 12:30:00 PM"]
    values, _ = read_times(pa.array(texts))
    assert [str(value) for value in values] == ["2021-01-31 00:30:00", "2021-01-31 12:30:00"]


def test_a_count_that_no_year_has_is_beyond_all_years_also_without_a_sign() -> None:
    values, unreadable = read_times(pa.array([2**64 - 1, 1_611_785_851_000_000, None], "uint64"))
    assert [str(value)[:4] for value in values] == ["9999", "2021", "None"]
    assert unreadable is None


EMPTY_TOO = [pa.float32(), pa.date32(), pa.decimal128(10, 0), pa.bool_(), pa.string()]


@pytest.mark.parametrize("kind", EMPTY_TOO)
def test_what_tells_no_time_is_unreadable_and_what_is_empty_is_none(kind: pa.DataType) -> None:
    values, unreadable = read_times(pa.array([1, None], pa.int32()).cast(kind))
    assert values.null_count == 2
    assert unreadable is not None
    assert unreadable.tolist() == [True, False]
    assert read_times(pa.array([None], kind)).unreadable is None


@pytest.mark.parametrize("kind", [pa.decimal128(38, 9), pa.decimal128(18, 5), pa.decimal256(50, 9)])
def test_every_zone_is_read_whatever_decimals_its_column_has(kind: pa.DataType) -> None:
    zones = list(range(1, N_ZONES))
    values, unreadable = read_zones(pa.array([Decimal(zone) for zone in zones], kind))
    assert unreadable is None
    assert values.to_pylist() == zones


def test_a_distance_in_decimals_is_the_number_that_its_text_is() -> None:
    texts = ["0.70", "8.95", "14.28", "178980.00", None]
    kind = pa.decimal128(9, 2)
    decimals = pa.array([None if text is None else Decimal(text) for text in texts], kind)
    assert read_numbers(decimals).values.equals(read_numbers(pa.array(texts)).values)
