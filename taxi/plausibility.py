"""Check that a month is plausible after the one before it, to catch half files or wrong units.

The bounds lie well outside what ten real months of green trips did, each compared with the one
before: 2020-10 to 2021-02, in the pandemic and the snow, 2022-01 and -02, 2023-01 to -03, two of
them over a gap of eleven months. What lies beyond is worth a look, but not an error.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .profile import EDGES, HAS_DISTANCE, TRIP_ENDS, Profile
from .words import format_count, percent

# each with what was seen in real months
MAX_TRIPS_RATIO = 2.0  # ratio of trips, either way: 0.84 to 1.11
MAX_SHARE_CHANGE = 0.1  # of the rows dropped for a reason, or without distance: 0.03
MIN_ZONES_RATIO = 0.75  # ratio of zones: 0.93
# ratios of miles, either way: 0.75 and 0.61; kilometres: 1.61
MAX_MEDIAN_RATIO, MAX_P90_RATIO = 1.5, 2.0
MIN_TRIPS = 1_000  # with fewer, zones, distances and hours vary by chance
NIGHT = 4  # hours: those with the fewest trips in a row begin between 0:00 and 4:00
MAX_NIGHT = 2.0  # ratio of their trips to those of the quietest hours: 1; clocks 5 hours off: 3.4


class MonthProfile(NamedTuple):
    """What is known of a month that was read."""

    name: str  # YYYY-MM
    dropped: Mapping[str, int]  # reason -> rows
    profile: Profile  # of the trips that were kept


def describe_implausible_months(months: Sequence[MonthProfile]) -> list[str]:
    """Compare each month with the latest one before it; return a sentence per oddity."""
    ordered = sorted(months, key=lambda month: month.name)
    return [line for before, now in pairwise(ordered) for line in compare_months(before, now)]


def describe_months_without_distance(months: Iterable[MonthProfile]) -> list[str]:
    """Name the months of which no trip has a distance, for a taxi whose files should have them."""
    names = sorted(month.name for month in months if not month.profile.shares(HAS_DISTANCE)[1])
    if not names:
        return []
    return [
        f"No trip of {', '.join(names)} has a distance: errors there that are said to be with a "
        "metered or planned one are those with none."
    ]


def describe_months_of_other_clocks(months: Iterable[MonthProfile]) -> list[str]:
    """Name the months whose quietest hours are not at night, as of New York's clock called UTC."""
    lines = []
    for month in sorted(months, key=lambda month: month.name):
        hours = month.profile.counts["hour"]
        later = [np.roll(hours, -hour) for hour in range(NIGHT)]
        in_a_row = np.sum(later, axis=0)  # by the first hour of them
        first = int(np.argmin(in_a_row))
        is_odd = np.min(in_a_row[: NIGHT + 1]) > MAX_NIGHT * in_a_row[first]
        if is_odd and month.profile.n_trips >= MIN_TRIPS:
            lines.append(
                f"{month.name} has the fewest trips from {first}:00 to {(first + NIGHT) % 24}:00, "
                "not at night: are its times New York's? Those marked as UTC are converted."
            )
    return lines


def describe_early_months(splits: Mapping[str, Sequence[str]]) -> list[str]:
    """Name the months, YYYY-MM, of valid or test that lie before months the model knows by then.

    Args:
        splits: train, valid and perhaps test -> its months.
    """
    found, latest_known = [], max(splits["train"])
    for split in ("valid", "test"):
        early = sorted(month for month in splits.get(split, ()) if month < latest_known)
        found += [
            f"{split} {month} is before {latest_known}, which the model knows" for month in early
        ]
        latest_known = max([latest_known, *splits.get(split, ())])
    return [f"{line}: errors there are not those of months to come." for line in found]


def compare_months(before: MonthProfile, now: MonthProfile) -> Iterator[str]:
    """Yield a sentence for each thing in a month that is implausible after the one before."""
    counts = before.profile.n_trips, now.profile.n_trips
    if is_beyond(counts[0], counts[1], MAX_TRIPS_RATIO):
        question = "is the file whole?" if counts[1] < counts[0] else "is it of one month?"
        n_trips = format_count(counts[1], "trip")
        yield f"{now.name} has {n_trips}, {before.name} had {counts[0]:,}: {question}"
    shares = dropped_shares(before), dropped_shares(now)
    for reason in shares[0] | shares[1]:
        then, share = (of_month.get(reason, 0.0) for of_month in shares)
        if abs(share - then) > MAX_SHARE_CHANGE:
            yield (
                f"{percent(share, 0)} of the rows of {now.name} are dropped, {reason}, and "
                f"{percent(then, 0)} of {before.name}: is that column as it was?"
            )
    if min(counts) >= MIN_TRIPS:
        yield from compare_zones(before, now)
        yield from compare_miles(before, now)


def compare_zones(before: MonthProfile, now: MonthProfile) -> Iterator[str]:
    """Yield a sentence for each end of trips with far fewer zones than before, or far more."""
    for end in TRIP_ENDS:
        n_before, n_now = (np.count_nonzero(m.profile.counts[end][1:]) for m in (before, now))
        if min(n_now, n_before) < MIN_ZONES_RATIO * max(n_now, n_before):
            yield (
                f"{now.name} has {n_now} zones as {end}, {before.name} had {n_before}: "
                "is a part of the city missing?"
            )


def compare_miles(before: MonthProfile, now: MonthProfile) -> Iterator[str]:
    """Yield a sentence for each implausible change in the distances."""
    for share, bound, description in (
        (0.5, MAX_MEDIAN_RATIO, "middle"),
        (0.9, MAX_P90_RATIO, "longest tenth's"),
    ):
        miles = [distance_quantile(month.profile, share) for month in (before, now)]
        if is_beyond(miles[0], miles[1], bound):
            yield (
                f"The {description} distance of {now.name} is {miles[1]:.1f} miles, of "
                f"{before.name} {miles[0]:.1f}: are they miles?"
            )
    without = [float(month.profile.shares(HAS_DISTANCE)[0]) for month in (before, now)]
    if abs(without[1] - without[0]) > MAX_SHARE_CHANGE:
        yield (
            f"{percent(without[1], 0)} of the trips of {now.name} have no distance, and "
            f"{percent(without[0], 0)} of {before.name}: is that column as it was?"
        )


def is_beyond(before: float, now: float, bound: float) -> bool:
    """Whether the ratio of two values, either way, is above a bound."""
    return now > before * bound or before > now * bound


def dropped_shares(month: MonthProfile) -> dict[str, float]:
    """Return the share of a month's rows dropped for each reason; reasons without rows left out."""
    n_rows = month.profile.n_trips + sum(month.dropped.values())
    return {reason: n / n_rows for reason, n in month.dropped.items() if n}


def distance_quantile(profile: Profile, share: float) -> float:
    """Estimate a quantile of the distances from their histogram, miles; NaN if there are none."""
    inner = EDGES["distance_miles"][1:-1]  # longer distances count as the last edge
    counts = profile.counts["distance_miles"][1:]
    below = np.concatenate(([0], np.cumsum(counts)))
    if not below[-1]:
        return float("nan")
    return float(np.interp(share * below[-1], below, np.append(inner, inner[-1])))
