"""The calendar: days on which traffic is that of a Sunday.

Days are counted from 1970-01-01, as numpy does.
"""

import numpy as np

# holidays is imported where it is used: a served model holds the days that it needs

YEARS = range(2009, 2041)  # the TLC's records begin in 2009


def public_holidays() -> np.ndarray:
    """List the days of YEARS on which offices are closed, int64 [d], ascending.

    The federal holidays and the weekdays on which those of a weekend are observed. New York has
    more, such as Lincoln's Birthday, on which it works: a model that took them for holidays told
    trips on them too short by over a minute.
    """
    import holidays

    days = holidays.country_holidays("US", years=YEARS)
    return np.array(sorted(day for day in days if day.year in YEARS), "M8[D]").astype(np.int64)
