"""What each group of features is worth: valid RMSE without it, on the real months of both years."""

from collections.abc import Iterator, Sequence

import numpy as np

from bench import Result
from bench.serving import load
from taxi import features, spaces
from taxi.boosting import TrainingJob, build_matrices, make_rows, train_booster
from taxi.features import DIRECTIONS
from taxi.schema import Trips

YEARS = {"2021": ("2021-01", "2021-02"), "2023": ("2023-01", "2023-02")}
TURNED = [f"{end}_{degrees}" for end in ("pickup", "dropoff") for degrees in DIRECTIONS]
GROUPS: dict[str, list[str]] = {
    "nothing": [],
    "the zones' ids": ["pickup_zone", "dropoff_zone"],
    "hour, weekday, minute of day": ["hour", "weekday", "minute_of_day"],
    "counts of pair and zones": ["pair_trips", "pickup_trips", "dropoff_trips"],
    "the map's own axes": ["pickup_x", "pickup_y", "dropoff_x", "dropoff_y"],
    "other directions of the map": TURNED,
    "way and middle": ["way_x", "way_y", "middle_x", "middle_y"],
    "straight line, crookedness, bearing": ["straight_miles", "crookedness", "bearing"],
}
WHOLE_MAP = [name for group in list(GROUPS.values())[4:] for name in group]
SEEDS = (42, 43)


def measure() -> Iterator[Result]:
    """Fit the search's first point at the refit's rate without each group, two seeds averaged."""
    trips = [(load(first), load(second)) for first, second in YEARS.values()]
    for name, left_out in {**GROUPS, "the whole map": WHOLE_MAP}.items():
        scores = [f"{rmse(train, valid, left_out):.3f}" for train, valid in trips]
        yield Result(f"valid RMSE of 2021 / 2023 without {name}", " / ".join(scores), "")


def rmse(train: Trips, valid: Trips, left_out: Sequence[str]) -> float:
    """Mean valid RMSE over SEEDS, in minutes."""
    encoder = features.fit_encoder("full", train)
    kept = [place for place, name in enumerate(encoder.names) if name not in left_out]
    rows = make_rows(encoder, train, valid)
    matrices = build_matrices(rows._replace(train=rows.train[:, kept], valid=rows.valid[:, kept]))
    space = spaces.select_space("lossguide")
    point = dict(space.first[0])
    parameters = {**space.fixed, **point, **space.refit}
    jobs = [
        TrainingJob({**parameters, "seed": seed}, space.refit_rounds, space.patience)
        for seed in SEEDS
    ]
    return float(np.mean([train_booster(matrices, job).rmse for job in jobs]))
