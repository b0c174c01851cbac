"""Search on samples: do the same points win there as on all train trips?"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bench import Result
from bench.search_lab import SEED
from bench.serving import load
from storage.tracking.processes import n_cores
from taxi import sampling, spaces
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.features import Encoder, fit_encoder
from taxi.rows import rows_with_distance
from taxi.schema import Trips
from taxi.spaces import ParameterRange, SearchSpace
from taxi.threads import thread_pool

TRAIN = ("2022-01", "2022-02", "2023-01", "2023-02")
VALID = "2023-03"
SHARES = (2, 4, 8, 16)  # number of train trips divided by that of a sample
N_POINTS = 12


def measure() -> Iterator[Result]:
    """Train the same random points on all trips, on samples, and on all with another seed."""
    train, valid = join_trips([load(month) for month in TRAIN]), load(VALID)
    space, encoder = spaces.select_space("lossguide"), fit_encoder("full", train)
    points = random_points(space)
    errors = partial(train_points, space, points, encoder, valid)
    whole = errors(train)
    agreed = f"{N_POINTS} random points on {len(train):,} real trips and on"
    for share in SHARES:
        seen = sampling.sample_trips_evenly(train, len(train) // share, seed=SEED)
        yield compare(f"{agreed} {len(seen):,} of them", whole, errors(seen))
    yield compare(f"{agreed} the same, another seed", whole, errors(train, seed=SEED + 1))


def join_trips(parts: Sequence[Trips]) -> Trips:
    """Concatenate trips."""
    columns = (field.name for field in fields(Trips))
    return Trips(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def compare(what: str, whole: np.ndarray, seen: np.ndarray) -> Result:
    """Compare two RMSEs of the same points, minutes [p]: by rank, and by what the choice costs."""
    rank = spearmanr(whole, seen).statistic
    lost = whole[np.argmin(seen)] - whole.min()
    gap = float(np.mean(seen - whole))
    return Result(
        f"{what}: rank correlation; RMSE lost by its best point; all points' RMSE there, less here",
        f"{rank:.2f}; {lost:.4f} min; {gap:+.3f} min",
        "",
    )


def random_points(space: SearchSpace) -> list[dict[str, Any]]:
    """Draw random points from the ranges of a space, its objectives in turn."""
    rng = np.random.default_rng(SEED)
    return [
        space.parameters(n, {name: draw_value(rng, one) for name, one in space.ranges.items()})
        for n in range(N_POINTS)
    ]


def draw_value(rng: np.random.Generator, allowed: ParameterRange) -> float:
    """Draw a value from a range."""
    low, high = (np.log([allowed.low, allowed.high])) if allowed.is_log else allowed[:2]
    value = float(np.exp(rng.uniform(low, high)) if allowed.is_log else rng.uniform(low, high))
    return round(value) if allowed.is_integer else value


def train_points(
    space: SearchSpace,
    points: list[dict[str, Any]],
    encoder: Encoder,
    valid: Trips,
    seen: Trips,
    *,
    seed: int = SEED,
) -> np.ndarray:
    """Train each point as a trial does, without pruning; return the RMSE on valid, minutes [p]."""
    matrices = build_matrices(rows_with_distance(encoder, seen, valid, max_bin=space.max_bin))

    def train(point: dict[str, Any]) -> float:
        parameters = {**space.fixed, **point, "seed": seed, "nthread": 1}
        return train_booster(matrices, TrainingJob(parameters, space.rounds, space.patience)).rmse

    with thread_pool(n_cores()) as threads:
        return np.array(list(threads.map(train, points)))
