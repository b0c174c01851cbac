"""Names that people know, for what code and tables call otherwise."""

import re
from datetime import date

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HISTOGRAMS = {  # name in a profile -> what it counts
    "trip_minutes": "duration, min",
    "distance_miles": "distance, miles",
    "hour": "hour of the pickup",
    "weekday": "weekday of the pickup",
}


def band_words(name: str) -> str:
    """Say a band of distances, `02.0..04.0 miles`, as people do: `2 to 4 miles`."""
    ends = re.fullmatch(r"([\d.]+)\.\.([\d.]+) miles", name)
    return f"{float(ends[1]):g} to {float(ends[2]):g} miles" if ends else name


def hour_words(name: str) -> str:
    """Write an hour, 07, as people do."""
    return f"{name}:00"


def group_words(kind: str, name: str) -> str:
    """Say a group of trips, by hour or by distance, as people do."""
    return hour_words(name) if kind == "hour" else band_words(name)


def weekday_of(day: str) -> str:
    """Name the weekday of a day such as 2021-02-01."""
    return WEEKDAYS[date.fromisoformat(day).weekday()]
