"""The calendar: holidays, with traffic like a Sunday's, and school recesses.

Days are counted from 1970-01-01, as numpy does.
"""

from collections.abc import Iterable

import numpy as np

# the package holidays is imported where it is used: a served model stores the days it needs

YEARS = range(2009, 2041)  # the TLC's records begin in 2009

# first and last days of recesses, as planned when the school year began, without single days off.
# Source: New York City Department of Education, calendars of 2013-14 to 2025-26; for the end of the
# last summer that of 2026-27
SCHOOL_RECESSES = (
    *(("2013-12-23", "2014-01-01"), ("2014-02-17", "2014-02-21"), ("2014-04-14", "2014-04-22")),
    ("2014-06-27", "2014-09-03"),
    *(("2014-12-24", "2015-01-02"), ("2015-02-16", "2015-02-20"), ("2015-04-03", "2015-04-10")),
    ("2015-06-27", "2015-09-08"),
    *(("2015-12-24", "2016-01-01"), ("2016-02-15", "2016-02-19"), ("2016-04-25", "2016-04-29")),
    ("2016-06-29", "2016-09-07"),
    *(("2016-12-26", "2017-01-02"), ("2017-02-20", "2017-02-24"), ("2017-04-10", "2017-04-18")),
    ("2017-06-29", "2017-09-06"),
    *(("2017-12-25", "2018-01-01"), ("2018-02-16", "2018-02-23"), ("2018-03-30", "2018-04-06")),
    ("2018-06-27", "2018-09-04"),
    *(("2018-12-24", "2019-01-01"), ("2019-02-18", "2019-02-22"), ("2019-04-19", "2019-04-26")),
    ("2019-06-27", "2019-09-04"),
    *(("2019-12-23", "2020-01-01"), ("2020-02-17", "2020-02-21"), ("2020-04-09", "2020-04-17")),
    ("2020-06-27", "2020-09-20"),
    *(("2020-12-24", "2021-01-01"), ("2021-02-15", "2021-02-19"), ("2021-03-29", "2021-04-02")),
    ("2021-06-26", "2021-09-12"),
    *(("2021-12-24", "2021-12-31"), ("2022-02-21", "2022-02-25"), ("2022-04-15", "2022-04-22")),
    ("2022-06-28", "2022-09-07"),
    *(("2022-12-26", "2023-01-02"), ("2023-02-20", "2023-02-24"), ("2023-04-06", "2023-04-14")),
    ("2023-06-28", "2023-09-06"),
    *(("2023-12-25", "2024-01-01"), ("2024-02-19", "2024-02-23"), ("2024-04-22", "2024-04-26")),
    ("2024-06-27", "2024-09-04"),
    *(("2024-12-24", "2025-01-01"), ("2025-02-17", "2025-02-21"), ("2025-04-14", "2025-04-18")),
    ("2025-06-27", "2025-09-03"),
    *(("2025-12-24", "2026-01-02"), ("2026-02-16", "2026-02-20"), ("2026-04-02", "2026-04-10")),
    ("2026-06-27", "2026-09-09"),
)


def public_holidays() -> np.ndarray:
    """List the days of YEARS on which offices are closed, int64 [d], ascending.

    These are the federal holidays, and the weekdays on which those of a weekend are observed. New
    York has more, such as Lincoln's Birthday, but works on them: counted as holidays, their trips
    were predicted too short by over a minute.
    """
    import holidays

    days = holidays.country_holidays("US", years=YEARS)
    return np.array(sorted(day for day in days if day.year in YEARS), "M8[D]").astype(np.int64)


def school_recess() -> np.ndarray:
    """List the days of SCHOOL_RECESSES, int64 [d], ascending."""
    ends = np.array(SCHOOL_RECESSES, "M8[D]").astype(np.int64)
    return np.concatenate([np.arange(first, last + 1) for first, last in ends])


def describe_months_beyond_calendar(months: Iterable[str], recess: np.ndarray) -> str:
    """Say which months, YYYY-MM, have school recesses that a calendar lacks; empty if none.

    Args:
        months: in any order.
        recess: its days, as from `school_recess`. They begin at Christmas and end with a summer, so
            the autumns before and after have none.
    """
    if not len(recess):
        return ""
    first, last = (str(day)[:4] for day in recess[[0, -1]].astype("M8[D]"))
    begin, end = f"{first}-09", f"{last}-11"
    beyond = [month for month in sorted(set(months)) if not begin <= month <= end]
    if not beyond:
        return ""
    return (
        f"{', '.join(beyond)}: the school calendar covers {begin} to {end}, so weeks without "
        "school count as school weeks. Add the city's to SCHOOL_RECESSES, taxi/days.py, and train "
        "again."
    )
