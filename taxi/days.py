"""The calendar: holidays, with traffic like a Sunday's, and school recesses.

Days are counted from 1970-01-01, as numpy does.
"""

from collections.abc import Iterable

import numpy as np

# the package holidays is imported where it is used: a served model stores the days it needs

YEARS = range(2009, 2041)  # the TLC's records begin in 2009

# first and last days of recesses, as planned when the school year began, without single days off.
# Source: New York City Department of Education, calendars of 2018-19 to 2025-26
SCHOOL_RECESSES = (
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
    ("2026-06-27", "2026-09-02"),
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


def months_beyond_calendar(months: Iterable[str], recess: np.ndarray) -> str:
    """Say which months, YYYY-MM, have school recesses that a calendar lacks; empty if none.

    Args:
        months: in any order.
        recess: its days, as from `school_recess`. They end with a summer, so the first ones that
            are lacking are at Christmas.
    """
    if not len(recess):
        return ""
    end = str(np.datetime64(int(recess.max()), "D"))
    late = [month for month in sorted(set(months)) if month >= f"{end[:4]}-12"]
    if not late:
        return ""
    return (
        f"{', '.join(late)}: the school calendar ends {end}, so weeks without school count as "
        "school weeks. Add the city's to SCHOOL_RECESSES, taxi/days.py, and train again."
    )
