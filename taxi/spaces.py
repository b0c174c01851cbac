"""Search spaces: the ranges of the parameters, and what all trials of a search share."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import exp
from typing import Any, NamedTuple

from . import TripError

# Trial n is asked for, and pruned, by the outcomes of the trials up to n - LAG, all of them
# finished. So it depends on no race: up to LAG trials at once give the same search as one at a
# time, to the last bit, and so does a search that was killed and goes on.
LAG = 8


def lag_of(parallelism: int) -> int:
    """Return how many trials back a suggestion looks, so that so many can run at once.

    Args:
        parallelism: trials at once, 0 for one on each core. More than LAG is the only case in which
            the search depends on it.
    """
    return max(parallelism, LAG)


class Range(NamedTuple):
    """The values that a parameter of xgboost may take."""

    low: float
    high: float
    is_log: bool = False  # tried evenly on a logarithmic scale; low is above 0
    is_whole: bool = False


class Pruning(NamedTuple):
    """When a trial is pruned: its curve, extrapolated, stays above the best RMSE of earlier ones.

    Trials are not compared at the same round: those with small steps or few leaves start behind.
    """

    warmup_rounds: int = 30  # before them a curve cannot be extrapolated
    n_doublings: int = 3  # of the rounds made that a trial may still go on for


@dataclass(frozen=True)
class SearchSpace:
    """What is searched, and what every trial has in common."""

    ranges: Mapping[str, Range]  # by xgboost's parameter names; empty = no search
    fixed: Mapping[str, Any]
    rounds: int = 1000  # of a trial, at most
    patience: int = 50  # rounds without a better RMSE that end a trial
    first: tuple[Mapping[str, float], ...] = ()  # points tried before anything is suggested
    pruning: Pruning | None = None
    refit: Mapping[str, Any] = field(default_factory=dict)  # what differs when the winner is refit
    refit_rounds: int = 1000
    n_boosters: int = 1  # of the refit, one for each of the best points; predictions are averaged

    def describe(self) -> dict[str, Any]:
        """Return what decides the course of a search in this space, as plain JSON values."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ("refit", "refit_rounds", "n_boosters")
        }


COURSE = {"objective": "reg:squarederror"}
LOSSGUIDE = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "grow_policy": "lossguide",
    "max_depth": 0,
}

SEARCH_SPACES: dict[str, SearchSpace] = {
    # the course's own space
    "seed": SearchSpace(
        ranges={
            "max_depth": Range(4, 100, is_whole=True),
            "learning_rate": Range(exp(-3), 1, is_log=True),
            "reg_alpha": Range(exp(-5), exp(-1), is_log=True),
            "reg_lambda": Range(exp(-6), exp(-1), is_log=True),
            "min_child_weight": Range(exp(-1), exp(3), is_log=True),
        },
        fixed=COURSE,
    ),
    # the course's best point: one trial, nothing to search
    "course_best": SearchSpace(
        ranges={},
        fixed=COURSE
        | {
            "max_depth": 30,
            "learning_rate": 0.09585355369315604,
            "min_child_weight": 1.060597050922164,
            "reg_alpha": 0.018060244040060163,
            "reg_lambda": 0.011658731377413597,
        },
    ),
    # trees bounded by leaves; fast while searching, slower and better when the winner is refit
    "lossguide": SearchSpace(
        ranges={
            "max_leaves": Range(32, 192, is_log=True, is_whole=True),
            "min_child_weight": Range(5, 150, is_log=True),
            "subsample": Range(0.6, 1),
            "colsample_bytree": Range(0.4, 1),
            "reg_alpha": Range(1e-2, 10, is_log=True),
            # more of it is a slower rate in disguise, which the refit has anyway
            "reg_lambda": Range(5, 100, is_log=True),
        },
        fixed=LOSSGUIDE | {"learning_rate": 0.2},
        patience=20,
        first=(
            {
                "max_leaves": 128,
                "min_child_weight": 80,
                "subsample": 0.9,
                "colsample_bytree": 0.7,
                "reg_alpha": 0.1,
                "reg_lambda": 80,
            },
        ),
        pruning=Pruning(),
        refit={"learning_rate": 0.1},
        n_boosters=5,
    ),
}


def select_space(name: str) -> SearchSpace:
    """Return a search space by its name.

    Raises:
        TripError: there is none of that name.
    """
    if name not in SEARCH_SPACES:
        raise TripError(f"Unknown search_space {name!r}. Choose from {sorted(SEARCH_SPACES)}.")
    return SEARCH_SPACES[name]
