"""Wording for people: familiar names and formats, and how many trips make a finding."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HISTOGRAM_LABELS = {  # name in a profile -> what it counts
    "trip_minutes": "duration, min",
    "distance_miles": "distance, miles",
    "hour": "hour of the pickup",
    "weekday": "weekday of the pickup",
}
# columns of the table of months, months.csv; all others are reasons for which rows were dropped
MONTH_COLUMNS = ("split", "month", "uri", "sha256", "n_bytes", "n_raw", "n_kept")
MIN_GROUP_TRIPS = 30  # smaller groups vary by chance: they get no finding, and no colour on a map


def groups_with_enough_trips(n_trips: Sequence[int]) -> list[int]:
    """List the indices of the groups with enough trips for a finding; all if none has enough."""
    enough = [index for index, n in enumerate(n_trips) if n >= MIN_GROUP_TRIPS]
    return enough or list(range(len(n_trips)))


def enough_trips_note(n_trips: Sequence[int]) -> str:
    """Say which groups a finding is about; empty if it is about all of them."""
    is_all = len(groups_with_enough_trips(n_trips)) == len(n_trips)
    return "" if is_all else f", of those with {MIN_GROUP_TRIPS} trips or more"


def format_count(n: int, noun: str) -> str:
    """Write 1 trial, 2 trials, 2,000 trials."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def percent(share: float, digits: int = 1, *, sign: str = "") -> str:
    """Write a share: 0.047 as 4.7 %."""
    return f"{share:{sign}z.{digits}%}".replace("%", " %")  # z: no -0.0 %


def drop_reasons_among(columns: Iterable[str]) -> list[str]:
    """List the reasons for dropped rows among the columns of the table of months."""
    return [name for name in columns if name not in MONTH_COLUMNS]


NUMBER = re.compile(r"(< )?[-+]?[\d,]*\.?\d+( ?%)?")


def are_numbers(cells: Iterable[str]) -> bool:
    """Whether a column of a table holds only numbers, which are then aligned to the right."""
    texts = [cell for cell in cells if cell]
    return bool(texts) and all(NUMBER.fullmatch(cell) for cell in texts)


def delimiter_row(columns: Iterable[Iterable[str]]) -> list[str]:
    """Write the delimiter row of a markdown table, which aligns numbers to the right."""
    return ["---:" if are_numbers(column) else "---" for column in columns]


def drift_subject(name: str) -> str:
    """Name what a measure of drift is about, without its unit, as the measure has none."""
    return HISTOGRAM_LABELS.get(name, name.replace("_", " ")).partition(",")[0]


def format_distance_band(name: str) -> str:
    """Write a band of distances, `02.0..04.0 miles`, for people: `2 to 4 miles`."""
    ends = re.fullmatch(r"([\d.]+)\.\.([\d.]+) miles", name)
    return f"{float(ends[1]):g} to {float(ends[2]):g} miles" if ends else name


def format_hour(name: str) -> str:
    """Write an hour, 07, for people: 07:00."""
    return f"{name}:00"


def weekday_of(day: str) -> str:
    """Name the weekday of a day such as 2021-02-01."""
    return WEEKDAYS[date.fromisoformat(day).weekday()]


def format_day(name: str) -> str:
    """Write a day with its weekday."""
    return f"{weekday_of(name)[:3]} {name}"


def format_busyness(name: str) -> str:
    """Write a group of zones, `busyness 1 (3 zones)`, for people: `busiest (3 zones)`."""
    return re.sub(r"^busyness ([1-5])", lambda match: BUSYNESS_NAMES[int(match[1]) - 1], name)


BUSYNESS_NAMES = ("busiest", "busy", "middling", "quiet", "quietest")

# kind of group -> function that writes its name for people; other names stay as they are
GROUP_FORMATTERS: Mapping[str, Callable[[str], str]] = {
    "hour": format_hour,
    "distance": format_distance_band,
    "day": format_day,
    "pickup zone": format_busyness,
}


def format_group(kind: str, name: str) -> str:
    """Write the name of a group of trips for people."""
    return GROUP_FORMATTERS.get(kind, str)(name)
