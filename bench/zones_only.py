"""Accuracy without any distance: mean absolute error in seconds, as others state it.

A public benchmark without distances, on yellow trips of 2023, has 297 s for the pair's median,
263 s for LightGBM and 253 s for an ensemble. Its trips differ from these: green taxis may not pick
up passengers in the south of Manhattan.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xgboost as xgb

from bench import Result
from bench.serving import load
from taxi import features, spaces, zones
from taxi.boosting import Matrices, TrainingJob, build_matrices, train_booster
from taxi.rows import rows_without_distance
from taxi.schema import Trips

TRAIN, TEST = "2023-01", "2023-02"
STOP_DAYS = np.timedelta64(7, "D")  # held out at the end of the train month for early stopping


def measure() -> Iterator[Result]:
    """Fit on a month, test on the next, on which nothing is chosen."""
    train, test = load(TRAIN), load(TEST)
    what = f"green {TRAIN} -> {TEST} without distance, MAE:"
    yield Result(f"{what} the pair's median", seconds(pair_medians(train, test), test), "")
    yield Result(f"{what} one booster", seconds(boosted(train, test), test), "")


def seconds(predicted: np.ndarray, test: Trips) -> str:
    """Write the mean absolute error, in seconds, of n predictions in minutes, [n]."""
    return f"{60 * np.abs(predicted - test.trip_minutes).mean():.0f} s"


def pair_medians(train: Trips, test: Trips) -> np.ndarray:
    """Predict n trips by the median of their pair of zones, or of all trips if it is new, [n]."""
    pairs, of_row = np.unique(zones.pair_code(train), return_inverse=True)
    medians = zones.medians(of_row, train.trip_minutes, len(pairs))
    codes = zones.pair_code(test)
    row = np.minimum(np.searchsorted(pairs, codes), len(pairs) - 1)
    return np.where(pairs[row] == codes, medians[row], np.median(train.trip_minutes))


def boosted(train: Trips, test: Trips) -> np.ndarray:
    """Predict n trips with a booster of the search's first point, minutes [n]."""
    space = spaces.select_space("lossguide")
    first = space.parameters(0, space.first[0])
    parameters = {**space.fixed, **first, "learning_rate": 0.1, "seed": 42, "nthread": 1}
    late = train.pickup_at >= train.pickup_at.max() - STOP_DAYS
    early_ones, late_ones = train.take(~late), train.take(late)
    job = TrainingJob(parameters, space.rounds, space.patience)
    rounds = train_booster(without_distance(early_ones, late_ones), job).best_round + 1
    return fit_and_predict(parameters, without_distance(train, test), rounds)


def fit_and_predict(parameters: Mapping[str, Any], matrices: Matrices, rounds: int) -> np.ndarray:
    """Train for a number of rounds, and predict the validation rows, minutes [n]."""
    told = {**parameters, "max_bin": matrices.max_bin}
    booster = xgb.train(told, matrices.train, rounds)
    return np.asarray(booster.predict(matrices.valid))


def without_distance(train: Trips, test: Trips) -> Matrices:
    """Encode n train and m test trips as if no distance were known."""
    rows = rows_without_distance(features.fit_encoder("full", train), train, test)
    return build_matrices(rows._replace(max_bin=spaces.select_space("lossguide").max_bin))
