"""Where the parts of a time end: what is a value, and what nobody can read."""

import pyarrow as pa
import pytest

from taxi.values import read_times

WELL_WRITTEN = (
    *("2021-01-01 00:00:00", "2021-12-31 23:59:59", "2020-02-29 12:00:00", "0001-01-01 00:00:00"),
    *("01/31/2021 01:00:00 AM", "01/31/2021 12:59:59 PM"),
)
BEYOND = (
    *("2021-00-01 12:00:00", "2021-13-01 12:00:00", "2021-01-00 12:00:00", "2021-01-32 12:00:00"),
    *("2021-02-29 12:00:00", "2021-04-31 12:00:00"),
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
