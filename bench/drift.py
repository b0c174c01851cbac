"""Which months a model's profile must cover so that a month it has learned from is not drift.

If train and valid differ much, a month like valid is far from train alone. Only profiles are made;
no model is fitted.
"""

from collections.abc import Iterator

import pyarrow.parquet as pq

from bench import DATA, Result
from taxi.cleaning import clean
from taxi.drift import psi
from taxi.profile import Profile, join_profiles

CASES = (  # train, valid, month that is scored
    (("2021-01",), "2022-01", "2022-02"),
    (("2020-12",), "2023-01", "2023-02"),
    (("2022-01", "2023-01"), "2023-02", "2023-03"),
    (("2021-01",), "2021-02", "2022-01"),
)


def measure() -> Iterator[Result]:
    """Compare the pickup zones of a month with those of train, and of train and valid."""
    for months, valid, scored in CASES:
        train, now = join_profiles(map(profile_of, months)), profile_of(scored)
        both = join_profiles((train, profile_of(valid)))
        found = [psi(one.counts["pickup_zone"], now.counts["pickup_zone"]) for one in (train, both)]
        yield Result(
            f"train {', '.join(months)}, valid {valid}, scored {scored}: PSI of the pickup zones",
            f"{found[0]:.3f} against train, {found[1]:.3f} against train and valid",
            "",
        )


def profile_of(month: str) -> Profile:
    """Make the profile of a real month's clean trips."""
    profile = Profile()
    for batch in pq.ParquetFile(DATA / f"green_tripdata_{month}.parquet").iter_batches():
        profile.add(clean(batch, taxi="green", month=month).trips)
    return profile
