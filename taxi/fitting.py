"""Fit the boosters of a recipe, for trips with a distance and without, for fixed rounds."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import xgboost as xgb

from .boosting import is_cuda, learning_rate_callbacks, n_bytes_of_bins, train_matrix, train_xgboost
from .features import Encoder
from .model import TripModel
from .recipes import Member, Recipe
from .rows import (
    TrainingData,
    has_distance,
    make_training_data,
    make_training_data_without_distance,
)
from .schema import Trips
from .threads import assign_threads, thread_pool

OpenScratchFolder = Callable[[int], AbstractContextManager[str]]


class BoosterSet(NamedTuple):
    """The boosters of a model that are trained on the same rows."""

    members: Sequence[Member]
    max_bin: int  # of each dense column
    make_training_data: Callable[[], TrainingData]  # called just before training, to save memory


# trains sets of boosters; returns the boosters of each set, in order
TrainSets = Callable[[Sequence[BoosterSet]], Sequence[Sequence[xgb.Booster]]]


def keep_in_memory(n_bytes: int) -> AbstractContextManager[str]:
    """Open no folder: bins stay in memory, whatever their size."""
    return nullcontext("")


def fit_boosters(
    recipe: Recipe, trips: Trips, taxi: str, encoder: Encoder, train: TrainSets
) -> TripModel:
    """Fit the boosters of a recipe, for fixed rounds.

    Args:
        recipe: a recipe with members.
        trips: n trips with their minutes.
        taxi: key of schema.TAXIS.
        encoder: fitted on these trips.
        train: trains the boosters, as train_locally does; the result does not depend on where.
    """

    def make_data_with_distance() -> TrainingData:
        has_known_distance = has_distance(trips) if recipe.members_without_distance else None
        return make_training_data(encoder, trips, recipe.half_life, kept=has_known_distance)

    sets = [BoosterSet(recipe.members, recipe.max_bin, make_data_with_distance)]
    if recipe.members_without_distance:
        make_data = partial(make_training_data_without_distance, encoder, trips, recipe.half_life)
        sets.append(BoosterSet(recipe.members_without_distance, recipe.max_bin, make_data))
    return TripModel(
        taxi, encoder, *train(sets), weight_without_distance=recipe.weight_without_distance
    )


def train_locally(
    sets: Sequence[BoosterSet], *, n_threads: int, scratch: OpenScratchFolder = keep_in_memory
) -> list[list[xgb.Booster]]:
    """Train sets one after the other, with the rows of only one in memory.

    Args:
        sets: of boosters.
        n_threads: shared by the boosters of a set; the result does not depend on them.
        scratch: opens a folder for so many bytes, as train_matrix takes it; empty for none.
    Returns:
        The boosters of each set, in the order of its members.
    """
    return [_train_set(booster_set, n_threads, scratch) for booster_set in sets]


def _train_set(
    booster_set: BoosterSet, n_threads: int, scratch: OpenScratchFolder
) -> list[xgb.Booster]:
    data = booster_set.make_training_data()
    n_bytes = n_bytes_of_bins(data.matrix, on_gpu=is_on_gpu(booster_set.members))
    with scratch(n_bytes) as folder:
        return _train_each(booster_set, data, n_threads, folder)


def _train_each(
    booster_set: BoosterSet, data: TrainingData, n_threads: int, folder: str
) -> list[xgb.Booster]:
    rows = train_matrix(*data, booster_set.max_bin, folder)
    shares = assign_threads(n_threads, len(booster_set.members), data.matrix.shape[0])
    train = partial(train_member, rows, booster_set.max_bin)
    # on a GPU, two boosters that bin the same rows at once crash the process
    with thread_pool(1 if is_on_gpu(booster_set.members) else n_threads) as threads:
        return list(threads.map(train, booster_set.members, shares))


def train_member(
    rows: xgb.DMatrix, max_bin: int, member: Member, n_threads: int = 1
) -> xgb.Booster:
    """Train a booster; the result does not depend on n_threads."""
    parameters = {**member.parameters, "nthread": n_threads, "max_bin": max_bin}
    return train_xgboost(
        parameters, rows, member.rounds, callbacks=learning_rate_callbacks(member.rates())
    )


def is_on_gpu(members: Sequence[Member]) -> bool:
    """Whether any of the boosters is trained on a GPU."""
    return any(is_cuda(member.parameters) for member in members)
