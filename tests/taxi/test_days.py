"""The calendar of New York."""

import numpy as np

from taxi import days
from taxi.days import describe_months_beyond_calendar, public_holidays, school_recess


def numbers(*dates: str) -> np.ndarray:
    return np.array(dates, "M8[D]").astype(np.int64)


def test_holidays_are_the_days_on_which_offices_close() -> None:
    closed = public_holidays()
    # Martin Luther King Jr., Presidents' Day, Thanksgiving, Independence Day on a Sunday and after
    assert np.isin(numbers("2021-01-18", "2021-02-15", "2022-11-24"), closed).all()
    assert np.isin(numbers("2021-07-04", "2021-07-05"), closed).all()
    # Lincoln's Birthday, Election Day and an ordinary day
    assert not np.isin(numbers("2021-02-12", "2021-11-02", "2021-01-20"), closed).any()
    assert (np.diff(closed) > 0).all()


def test_every_year_of_the_calendar_has_its_holidays() -> None:
    years = public_holidays().astype("M8[D]").astype("M8[Y]").astype(int) + 1970
    assert sorted(set(years)) == list(days.YEARS) == list(range(2009, 2041))
    assert np.bincount(years)[2009:].min() >= 10


def test_a_recess_begins_and_ends_as_the_schools_say_and_none_overlaps_another() -> None:
    without = school_recess()
    assert np.isin(numbers("2023-02-20", "2023-02-24", "2024-07-15", "2020-12-24"), without).all()
    assert np.isin(numbers("2014-12-24", "2015-04-03", "2018-02-16", "2018-08-15"), without).all()
    in_school = ("2023-02-17", "2023-02-27", "2021-01-04", "2024-10-14", "2025-09-04")
    assert not np.isin(numbers("2015-01-05", "2017-04-19", "2017-09-07"), without).any()
    assert not np.isin(numbers(*in_school), without).any()
    assert (np.diff(without) > 0).all()


def test_a_recess_lasts_a_week_or_so_or_a_summer() -> None:
    for first, last in np.array(days.SCHOOL_RECESSES, "M8[D]"):
        length = int((last - first).astype(int)) + 1
        assert 5 <= length <= 14 or 68 <= length <= 90


def test_the_months_that_the_school_calendar_does_not_reach_are_named() -> None:
    known = numbers("2025-12-24", "2026-09-02")
    assert (
        describe_months_beyond_calendar(["2025-09", "2026-06", "2026-09", "2026-11"], known) == ""
    )
    line = describe_months_beyond_calendar(
        ["2027-02", "2026-12", "2026-11", "2026-12", "2025-08"], known
    )
    assert line.startswith(
        "2025-08, 2026-12, 2027-02: the school calendar covers 2025-09 to 2026-11, so weeks "
    )
    assert describe_months_beyond_calendar(["2026-12"], known[:0]) == ""


def test_the_school_calendar_covers_every_year_in_which_the_tlc_has_green_trips() -> None:
    assert describe_months_beyond_calendar(["2014-01", "2018-08", "2026-11"], school_recess()) == ""
    # the first day of school was the Thursday after Labor Day, the 7th
    assert np.isin(numbers("2026-09-09", "2026-09-10"), school_recess()).tolist() == [True, False]


def test_the_school_calendar_begins_at_christmas_and_ends_with_a_summer() -> None:
    assert days.SCHOOL_RECESSES[0][0][5:7] == "12"
    assert days.SCHOOL_RECESSES[-1][1][5:7] == "09"
