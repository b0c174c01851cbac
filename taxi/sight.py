"""Boosters for trips with a distance and for trips without: their fit for fixed rounds."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import xgboost as xgb

from .boosting import n_bytes_of_bins, train_matrix, train_on
from .features import Encoder
from .model import TripModel
from .recipes import Member, Recipe
from .rows import TrainPart, has_distance, lay_out_blind, lay_out_train
from .schema import Trips
from .threads import thread_pool

Scratch = Callable[[int], AbstractContextManager[str]]


def in_memory(n_bytes: int) -> AbstractContextManager[str]:
    """Open no folder, however many bytes would go into it."""
    return nullcontext("")


def fit_boosters(
    recipe: Recipe,
    trips: Trips,
    taxi: str,
    encoder: Encoder,
    *,
    n_threads: int,
    scratch: Scratch = in_memory,
) -> TripModel:
    """Fit the boosters of a recipe, for fixed rounds.

    Args:
        recipe: of boosters.
        trips: n trips with their minutes.
        taxi: key of schema.TAXIS.
        encoder: fitted on these trips.
        n_threads: boosters trained at once, each on one; the result does not depend on it.
        scratch: opens the folder of train_matrix for so many bytes; empty for none.
    """
    known = has_distance(trips) if recipe.blind else None
    part = lay_out_train(encoder, trips, recipe.half_life, kept=known)
    members = _train(recipe, recipe.members, part, n_threads, scratch)
    del part  # before the next one takes its memory
    if not recipe.blind:
        return TripModel(taxi, encoder, members)
    part = lay_out_blind(encoder, trips, recipe.half_life)
    return TripModel(taxi, encoder, members, _train(recipe, recipe.blind, part, n_threads, scratch))


def _train(
    recipe: Recipe, members: Sequence[Member], part: TrainPart, n_threads: int, scratch: Scratch
) -> list[xgb.Booster]:
    on_gpu = any(member.parameters.get("device") == "cuda" for member in members)
    with scratch(n_bytes_of_bins(part.matrix, on_gpu=on_gpu)) as folder:
        return _train_each(recipe, members, part, n_threads, folder)


def _train_each(
    recipe: Recipe, members: Sequence[Member], part: TrainPart, n_threads: int, folder: str
) -> list[xgb.Booster]:
    rows = train_matrix(*part, recipe.max_bin, folder)

    def fit(member: Member) -> xgb.Booster:
        parameters = {**member.parameters, "nthread": 1, "max_bin": recipe.max_bin}
        return train_on(parameters, rows, member.rounds)

    with thread_pool(n_threads) as threads:
        return list(threads.map(fit, members))
