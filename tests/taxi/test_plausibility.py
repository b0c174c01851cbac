"""What is implausible about a month after the one before it."""

import numpy as np
import pyarrow as pa
import pytest

from taxi.cleaning import clean
from taxi.plausibility import (
    MonthProfile,
    describe_early_months,
    describe_implausible_months,
    describe_months_of_other_clocks,
    describe_months_without_distance,
    distance_quantile,
)
from taxi.profile import HAS_DISTANCE, Profile, join_profiles
from taxi.schema import TRIPS
from tests.conftest import make_raw, real_month, simulated_trips

MONTHS = [
    "2020-10",
    "2020-11",
    "2020-12",
    "2021-01",
    "2021-02",
    "2022-01",
    "2022-02",
    "2023-01",
    "2023-02",
    "2023-03",
]
MILES = np.linspace(0.1, 12, 1_200)


def profile_of(n: int = 1_200, zones: int = 250, miles: float = 1.0) -> Profile:
    """Make the profile of n January trips between so many zones, with `miles` times MILES."""
    places = np.arange(n) % zones + 1
    given = make_raw(
        n=n,
        pickup_zone=places.tolist(),
        dropoff_zone=places.tolist(),
        distance_miles=(np.resize(MILES, n) * miles).tolist(),
    )
    profile = Profile()
    profile.add(clean(given, taxi="green", month="2021-01").trips)
    return profile


BEFORE = MonthProfile("2021-01", {"zone missing": 10}, profile_of())


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"profile": profile_of(n=1)}, "2021-02 has 1 trip, 2021-01 had 1,200: is the file whole?"),
        ({"profile": profile_of(n=500)}, "2021-02 has 500 trips, 2021-01 had 1,200: is the file"),
        ({"profile": profile_of(n=2_500)}, "2,500 trips, 2021-01 had 1,200: is it of one month?"),
        (
            {"dropped": {"zone missing": 400}},
            "25 % of the rows of 2021-02 are dropped, zone missing, and 1 % ",
        ),
        (
            {"profile": profile_of(zones=180)},
            "2021-02 has 180 zones as pickup_zone, 2021-01 had 250",
        ),
        (
            {"profile": profile_of(miles=1.609)},
            "The middle distance of 2021-02 is 9.7 miles, of 2021-01 6.0",
        ),
        (
            {"profile": profile_of(miles=2.1)},
            "The longest tenth's distance of 2021-02 is 22.7 miles, of 2021-01 10.8",
        ),
        (
            {"profile": profile_of(miles=8)},  # most of them beyond the histogram's end
            "The middle distance of 2021-02 is 30.0 miles, of 2021-01 6.0",
        ),
        (
            {"profile": profile_of(miles=float("nan"))},
            "100 % of the trips of 2021-02 have no distance",
        ),
    ],
)
def test_what_is_odd_is_said_with_both_months_numbers(now: dict[str, object], said: str) -> None:
    month = BEFORE._replace(**{"name": "2021-02", **now})
    assert said in "\n".join(describe_implausible_months([month, BEFORE]))


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (
            {"dropped": {"zone missing": 400}},
            "1 % of the rows of 2021-01 are dropped, zone missing",
        ),
        ({"profile": profile_of(zones=180)}, "2021-01 has 250 zones as pickup_zone, 2020-12 had 1"),
        ({"profile": profile_of(miles=float("nan"))}, "0 % of the trips of 2021-01 have no dist"),
    ],
)
def test_a_month_that_lacks_what_the_next_one_has_is_odd_too(
    first: dict[str, object], said: str
) -> None:
    month = BEFORE._replace(**{"name": "2020-12", **first})
    assert said in "\n".join(describe_implausible_months([month, BEFORE]))


def test_a_month_like_the_one_before_is_not_odd_nor_is_a_first_one() -> None:
    alike = MonthProfile("2021-02", {"zone missing": 100}, profile_of(n=900, zones=200, miles=1.4))
    assert describe_implausible_months([BEFORE, alike]) == []
    assert describe_implausible_months([BEFORE]) == describe_implausible_months([]) == []


def test_zones_and_distances_of_few_trips_are_not_compared() -> None:
    few = [
        MonthProfile(name, {}, profile_of(n=90, miles=n)) for n, name in enumerate(MONTHS, start=1)
    ]
    assert describe_implausible_months(few) == []


def test_months_without_any_distance_are_named_even_if_all_are_alike() -> None:
    without = profile_of(miles=float("nan"))
    months = [MonthProfile(name, {}, without) for name in ("2019-03", "2019-02")]
    assert describe_implausible_months(months) == []
    (line,) = describe_months_without_distance([*months, BEFORE])
    assert line.startswith("No trip of 2019-02, 2019-03 has a distance: errors there ")
    assert describe_months_without_distance([BEFORE]) == []


@pytest.mark.parametrize(
    ("hours_off", "said"), [(0, []), (-5, ["from 21:00 to 1:00"]), (-4, ["from 22:00 to 2:00"])]
)
def test_a_month_by_another_clock_is_told_by_its_quietest_hours(
    hours_off: int, said: list[str]
) -> None:
    trips = simulated_trips("2021-02")
    at = pa.array(trips.pickup_at + np.timedelta64(hours_off, "h"))
    columns = {name: pa.array(getattr(trips, name)) for name in TRIPS.names} | {"pickup_at": at}
    profile = Profile()
    profile.add(pa.RecordBatch.from_pydict(columns))
    lines = describe_months_of_other_clocks([MonthProfile("2021-02", {}, profile)])
    found = [line.partition(" trips ")[2].partition(", not at night")[0] for line in lines]
    assert found == said
    profile.n_trips = 999  # of so few that may be chance
    assert describe_months_of_other_clocks([MonthProfile("2021-02", {}, profile)]) == []


def test_the_latest_month_before_is_compared_whatever_the_order() -> None:
    small, large = profile_of(n=100), profile_of(n=1_000)
    named = [("2023-01", large), ("2021-01", small), ("2022-12", large), ("2021-02", small)]
    (line,) = describe_implausible_months(
        [MonthProfile(name, {}, profile) for name, profile in named]
    )
    assert line == "2022-12 has 1,000 trips, 2021-02 had 100: is it of one month?"


def test_a_quantile_is_that_of_the_distances_to_a_tenth_of_a_mile() -> None:
    found = [distance_quantile(profile_of(), share) for share in (0.5, 0.9)]
    assert found == pytest.approx(np.quantile(MILES, [0.5, 0.9]), abs=0.1)


def test_profiles_add_up_to_that_of_all_trips() -> None:
    parts = [profile_of(n=10), profile_of(n=700)]
    assert join_profiles(parts).state() == join_profiles(reversed(parts)).state()
    assert join_profiles(parts[:1]).state() == parts[0].state()
    assert join_profiles(parts).n_trips == 710


@pytest.mark.parametrize("place", [0, 1])
def test_what_a_profile_has_not_counted_its_sum_has_not(place: int) -> None:
    parts = [profile_of(n=10), profile_of(n=700)]
    del parts[place].counts[HAS_DISTANCE]
    joined = join_profiles(parts)
    assert joined.counts.keys() == parts[place].counts.keys()
    assert joined.n_trips == 710


def test_no_real_month_is_odd() -> None:
    months = []
    for name in MONTHS:
        (batch,) = real_month(name).combine_chunks().to_batches()
        profile, cleaned = Profile(), clean(batch, taxi="green", month=name)
        profile.add(cleaned.trips)
        months.append(MonthProfile(name, cleaned.dropped, profile))
    assert describe_implausible_months(months) == []
    assert describe_months_of_other_clocks(months) == describe_months_without_distance(months) == []


@pytest.mark.parametrize(
    ("train", "valid", "test", "said"),
    [
        ("2021-01 2021-02", "2021-03", "2021-04", []),
        ("2021-02", "2021-03", "", []),
        ("2020-12 2021-02", "2021-01", "2021-03", ["valid 2021-01 is before 2021-02"]),
        ("2021-01", "2021-03", "2021-02", ["test 2021-02 is before 2021-03"]),
        (
            "2020-02 2019-12",
            "2020-03",
            "2020-04 2019-11 2018-12",
            ["test 2018-12 is before 2020-03", "test 2019-11 is before 2020-03"],
        ),
    ],
)
def test_a_month_before_those_that_a_model_knows_is_named(
    train: str, valid: str, test: str, said: list[str]
) -> None:
    splits = {"train": train.split(), "valid": valid.split()}
    found = describe_early_months(splits | ({"test": test.split()} if test else {}))
    assert [line.partition(",")[0] for line in found] == said
