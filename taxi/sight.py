"""Boosters for trips with a distance and for trips without: their fit for fixed rounds."""

from collections.abc import Sequence
from typing import Any

import xgboost as xgb

from .boosting import train_matrix
from .features import Encoder
from .model import TripModel
from .recipes import Member, Recipe
from .rows import encode_blind, has_distance, weights_by_age
from .schema import Trips
from .threads import thread_pool


def fit_boosters(
    recipe: Recipe, trips: Trips, taxi: str, encoder: Encoder, *, n_threads: int
) -> TripModel:
    """Fit the boosters of a recipe, for fixed rounds.

    Args:
        recipe: of boosters.
        trips: n trips with their minutes.
        taxi: key of schema.TAXIS.
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
