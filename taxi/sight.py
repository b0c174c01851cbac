"""Boosters for trips with a distance and for trips without, and their fit for fixed rounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xgboost as xgb

from . import features
from .boosting import Rows, make_rows, train_matrix, weights_by_age
from .features import Encoder
from .model import TripModel
from .recipes import Member, Recipe
from .schema import Trips, clean_miles
from .threads import thread_pool

# below this share of trips with a distance, those without one get no boosters of their own
MIN_KNOWN = 0.5


def is_split(encoder: Encoder, *splits: Trips) -> bool:
    """Whether trips without a distance can get boosters of their own: most trips must have one.

    Args:
        encoder: the one-hot encoding cannot do without a distance.
        splits: trips that boosters are trained or scored on.
    """
    shares = [float(np.mean(has_distance(trips))) for trips in splits]
    return isinstance(encoder, features.DenseFeatures) and min(shares) >= MIN_KNOWN


def has_distance(trips: Trips) -> np.ndarray:
    """Whether each trip has a distance to go by, bool [n]."""
    return ~np.isnan(clean_miles(trips))


def sighted_rows(encoder: Encoder, train: Trips, valid: Trips) -> Rows:
    """Encode the train trips that have a distance, and the valid trips that do."""
    rows = make_rows(encoder, train, valid)
    known, judged = has_distance(train), has_distance(valid)
    return Rows(rows.train[known], rows.train_y[known], rows.valid[judged], rows.valid_y[judged])


def blind_rows(encoder: Encoder, train: Trips, valid: Trips) -> Rows:
    """Encode all trips as if no distance were known."""
    return Rows(
        encode_blind(encoder, train, is_train=True),
        train.trip_minutes,
        encode_blind(encoder, valid, is_train=False),
        valid.trip_minutes,
    )


def encode_blind(encoder: Any, trips: Trips, *, is_train: bool) -> np.ndarray:
    """Encode n trips as if no distance were known, float32 [n, k].

    Columns that then say nothing are constant: missing everywhere, they would keep xgboost from its
    compact bins, and no tree asks them either way.
    """
    if is_train:
        matrix = encoder.transform_train(trips, blind=True)
    else:
        matrix = encoder.transform(trips.without_distance())
    return np.where(np.isnan(matrix).all(axis=0), np.float32(0), matrix)


def fit_boosters(
    recipe: Recipe, trips: Trips, taxi: str, encoder: Encoder, *, n_threads: int
) -> TripModel:
    """Fit the boosters of a recipe, for fixed rounds.

    Args:
        recipe: of boosters.
        trips: n trips with their minutes.
        taxi: green or yellow.
        encoder: fitted on these trips.
        n_threads: boosters trained at once, each on one; the result does not depend on it.
    """
    matrix, known = encoder.transform_train(trips), has_distance(trips)
    if not recipe.blind:
        return TripModel(taxi, encoder, _train(recipe, recipe.members, matrix, trips, n_threads))
    members = _train(recipe, recipe.members, matrix[known], trips.take(known), n_threads)
    matrix = encode_blind(encoder, trips, is_train=True)
    return TripModel(taxi, encoder, members, _train(recipe, recipe.blind, matrix, trips, n_threads))


def _train(
    recipe: Recipe, members: Sequence[Member], matrix: Any, trips: Trips, n_threads: int
) -> list[xgb.Booster]:
    weight = weights_by_age(trips.pickup_at, recipe.half_life)
    rows = train_matrix(matrix, trips.trip_minutes, weight, recipe.max_bin)

    def train(member: Member) -> xgb.Booster:
        parameters = {**member.parameters, "nthread": 1, "max_bin": recipe.max_bin}
        return xgb.train(parameters, rows, member.rounds)

    with thread_pool(n_threads) as threads:
        return list(threads.map(train, members))
