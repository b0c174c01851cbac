"""How often slices refuse a candidate that is exactly as bad as allowed.

Two boosters of real months predict a later month. The errors of one are scaled until its RMSE on a
slice is larger by exactly MAX_LOSS, and samples of the slice are judged at the level of the first
of N_LOOKS slices. A share equal to the level may be refused.
"""

from collections.abc import Iterator
from math import sqrt
from time import process_time

import numpy as np
from scipy.special import stdtr

from bench import Result
from bench.estimate import fit_booster
from bench.serving import load
from taxi.bootstrap import resampled_means
from taxi.rows import has_distance
from taxi.slices import AIRPORTS, ALPHA, judge_slices, pair_slices

TRAINED, TEST = (("2023-01", "2023-02"), ("2022-01", "2022-02")), "2023-03"
MAX_LOSS, N_LOOKS = 0.05, 18
LEVEL = ALPHA / N_LOOKS
SIZES = (30, 100, 300)
N_SAMPLES, N_BOOTSTRAPPED, N_RESAMPLES = 20_000, 200, 4_000


def measure() -> Iterator[Result]:
    """Judge samples of slices by Student's t and by the percentile bootstrap."""
    models = [fit_booster(load(train), load(valid)) for train, valid in TRAINED]
    test = load(TEST)
    predicted = [model.predict(test) for model in models]
    squares = [(minutes - test.trip_minutes) ** 2 for minutes in predicted]
    rng = np.random.default_rng(42)
    for name, rows in {
        "all trips": np.ones(len(test), bool),
        "airports": np.isin(test.pickup_zone, AIRPORTS) | np.isin(test.dropoff_zone, AIRPORTS),
        "no usable distance": ~has_distance(test),
    }.items():
        for one, two in (squares, squares[::-1]):
            k = (1 + MAX_LOSS) ** 2
            candidate = one[rows] * (k * two[rows].mean() / one[rows].mean())
            yield refusals(name, candidate - k * two[rows], rng)
    start = process_time()
    parts = pair_slices(test, predicted[0], predicted[1], None)
    judge_slices(parts, MAX_LOSS)
    seconds = process_time() - start
    what = f"{len(parts)} slices of {len(test):,} trips, map of the city included"
    yield Result(what, f"{seconds:.2f} s of CPU", "")


def refusals(name: str, difference: np.ndarray, rng: np.random.Generator) -> Result:
    """Count refusals relative to the allowed number, by t and by the percentile bootstrap."""
    told = []
    for n in SIZES:
        sample = difference[rng.integers(0, len(difference), (N_SAMPLES, n))]
        t = sample.mean(axis=1) / (sample.std(axis=1, ddof=1) / sqrt(n))
        by_t = float((stdtr(n - 1, -t) <= LEVEL).mean())
        ends = [
            np.quantile(resample(one, seed), LEVEL)
            for seed, one in enumerate(sample[:N_BOOTSTRAPPED])
        ]
        by_resamples = float(np.mean(np.array(ends) > 0))
        told.append(f"{by_t / LEVEL:.1f} / {by_resamples / LEVEL:.1f}")
    what = f"{name}: refusals over those allowed by t / by resamples, {SIZES} trips"
    return Result(what, "; ".join(told), "1")


def resample(values: np.ndarray, seed: int) -> np.ndarray:
    """Compute the means of values [n] over resamples, [N_RESAMPLES]."""
    column = values[:, None]
    means = resampled_means(column.__getitem__, len(column), seed=seed, n_resamples=N_RESAMPLES)
    return means[:, 0]
