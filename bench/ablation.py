"""What each part of the model is worth: validation RMSE without it, on real months of 3 years."""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from bench import DATA, Result
from bench.serving import load
from taxi import city, features, spaces
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.city import City
from taxi.rows import rows_with_distance
from taxi.schema import Trips
from taxi.spaces import POISSON, SQUARED

YEARS = {
    "2021": ("2021-01", "2021-02"),
    "2022": ("2022-01", "2022-02"),
    "2023": ("2023-01", "2023-02"),
}
LEARNED = ["straight_miles", "crookedness"]
OF_CITY = [feature.__name__ for feature in features.CITY_FEATURES]
GROUPS: dict[str, list[str]] = {
    "nothing (all columns)": [],
    "the zones' ids": ["pickup_zone", "dropoff_zone"],
    "hour, weekday, minute of day": ["hour", "traffic_weekday", "minute_of_day"],
    "the pair's count": ["pair_trips"],
    "how long the detour is": ["detour_miles"],
    "the learned map": LEARNED,
    "the TLC's map": OF_CITY,
    "both maps": [*LEARNED, *OF_CITY],
}
SEEDS = (42, 43, 44)


def measure() -> Iterator[Result]:
    """Train the search's first two points without each group, three seeds averaged."""
    for name, left_out in GROUPS.items():
        scores = [f"{np.mean(rmses(year, left_out)):.3f}" for year in YEARS]
        yield Result(f"valid RMSE of {' / '.join(YEARS)} without {name}", " / ".join(scores), "")
    for objective in (POISSON, SQUARED):
        scores = [f"{np.mean(rmses(year, [], objective.name)):.3f}" for year in YEARS]
        yield Result(f"the same by {objective.name} alone", " / ".join(scores), "")


def rmses(year: str, left_out: Sequence[str], objective: str = "") -> list[float]:
    """Return the RMSE on the validation trips that have a distance, minutes, for each of SEEDS.

    Args:
        year: key of YEARS.
        left_out: columns to train without.
        objective: of a single booster; empty = the average of one booster per objective.
    """
    train, valid = trips(YEARS[year])
    encoder = features.fit_encoder("full", train, read_city())
    kept = [place for place, name in enumerate(encoder.names) if name not in left_out]
    rows, space = rows_with_distance(encoder, train, valid), spaces.select_space("lossguide")
    rows = rows._replace(
        train=rows.train[:, kept], valid=rows.valid[:, kept], max_bin=space.max_bin
    )
    matrices = build_matrices(rows)
    points = [space.parameters(number, space.first[number]) for number in range(2)]
    wanted = [point for point in points if objective in ("", point["objective"])]
    scores = []
    for seed in SEEDS:
        jobs = [
            TrainingJob(
                {**space.fixed, **point, "seed": seed},
                space.rounds,
                space.patience,
                keep_booster=True,
            )
            for point in wanted
        ]
        boosters = [train_booster(matrices, job).booster for job in jobs]
        predicted = np.mean([b.inplace_predict(rows.valid) for b in boosters if b], axis=0)
        scores.append(float(np.sqrt(np.mean((predicted - rows.valid_y) ** 2))))
    return scores


@cache
def trips(months: tuple[str, str]) -> tuple[Trips, Trips]:
    """Clean two real months."""
    first, second = map(load, months)
    return first, second


@cache
def read_city() -> City:
    """Read the real zones."""
    return city.parse_city(*((DATA / name).read_bytes() for name in city.ZONE_FILES))
