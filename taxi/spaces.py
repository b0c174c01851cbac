"""Search spaces: the ranges of the parameters, and what all trials of a search share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp
from types import MappingProxyType
from typing import Any, NamedTuple

from . import TripError

# Trial n is asked for, and pruned, by the outcomes of the trials up to n - LAG, all of them
# finished; once the points known to be good are over, by all of these. So it depends on no race: up
# to LAG trials at once give the same search as one at a time, to the last bit, and so does a search
# that was killed and goes on.
LAG = 8


def lag_of(parallelism: int) -> int:
    """Return how many trials back a suggestion looks, so that so many can run at once.

    Args:
        parallelism: trials at once, 0 for one on each core. More than LAG is the only case in which
            the search depends on it.
    """
    return max(parallelism, LAG)


# Trips of a split that trials see where there are more. A month of green taxis has 70,000 of late,
# one of yellow ones 3 million, a trial on which takes minutes
SEARCH_ROWS = 1_000_000


def bound_for(n_trips: Iterable[int], max_rows: int) -> int:
    """Return how many trips of a split the trials see at most; 0 where they see all of each.

    Args:
        n_trips: of each split.
        max_rows: of a split; 0 = all.
    """
    return max_rows if max_rows and max(n_trips) > max_rows else 0


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

    warmup_rounds: int = 12  # before them a curve cannot be extrapolated
    n_doublings: int = 1  # of the rounds made that a trial may still go on for


class Objective(NamedTuple):
    """A loss, and what the values of the ranges are multiplied by for it."""

    name: str  # xgboost's
    scales: Mapping[str, float] = MappingProxyType({})  # parameter -> factor


SQUARED = Objective("reg:squarederror")
# its second derivative is the prediction in minutes, where that of the squared error is 1; so a
# point means the same tree for both
POISSON = Objective("count:poisson", {"min_child_weight": 7.0, "reg_lambda": 5.0, "reg_alpha": 7.0})


@dataclass(frozen=True)
class SearchSpace:
    """What is searched, and what every trial has in common."""

    ranges: Mapping[str, Range]  # by xgboost's parameter names; empty = no search
    fixed: Mapping[str, Any]
    objectives: tuple[Objective, ...] = (SQUARED,)  # trials take them in turn
    max_bin: int = 256  # of each dense column
    # trips without a distance are left to boosters of their own, which know none of any trip
    is_split_by_distance: bool = False
    rounds: int = 1000  # of a trial, at most
    patience: int = 50  # rounds without a better RMSE that end a trial
    score_every: int = 1  # rounds from one score on valid to the next
    first: tuple[Mapping[str, float], ...] = ()  # points tried before anything is suggested
    pruning: Pruning | None = None
    n_boosters: int = 1  # of the model, at most; predictions are averaged

    def describe(self) -> dict[str, Any]:
        """Return what decides the course of a search in this space, as plain JSON values."""
        told = {name: value for name, value in vars(self).items() if name != "n_boosters"}
        told["ranges"] = {name: list(allowed) for name, allowed in self.ranges.items()}
        told["objectives"] = [[name, dict(scales)] for name, scales in self.objectives]
        return told

    def objective(self, number: int) -> Objective:
        """Return the objective of a trial."""
        return self.objectives[number % len(self.objectives)]

    def parameters(self, number: int, point: Mapping[str, float]) -> dict[str, Any]:
        """Convert a point of the ranges to xgboost's parameters of a trial."""
        objective = self.objective(number)
        scaled = {name: value * objective.scales.get(name, 1) for name, value in point.items()}
        return {"objective": objective.name, **scaled}

    def point(self, parameters: Mapping[str, Any]) -> dict[str, float]:
        """Convert the parameters of a trial back to the point of the ranges."""
        scales = {one.name: one.scales for one in self.objectives}[parameters["objective"]]
        return {name: parameters[name] / scales.get(name, 1) for name in self.ranges}


LOSSGUIDE = {
    "eval_metric": "rmse",  # whatever the objective: all trials are compared by it
    "tree_method": "hist",
    "grow_policy": "lossguide",
    "max_depth": 0,
}

SEARCHED = (
    "max_leaves",
    "min_child_weight",
    "subsample",
    "colsample_bytree",
    "reg_alpha",
    "reg_lambda",
)
# points that were good and unlike each other in each of 2021, 2022 and 2023, in the order in which
# they made the average of their boosters better; TPE goes on from them. More of them add less than
# the first one's other seeds, which are trained anyway
PORTFOLIO = tuple(
    dict(zip(SEARCHED, values, strict=True))
    for values in (
        (128, 80.0, 0.9, 0.7, 0.1, 80.0),
        (112, 43.0, 1.0, 0.9, 0.9, 74.0),
        (116, 35.0, 0.7, 0.4, 1.8, 100.0),
        (157, 21.0, 0.9, 0.45, 2.3, 60.0),
        (112, 43.0, 1.0, 0.9, 0.9, 74.0),
    )
)

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
        fixed={},
    ),
    # the course's best point: one trial, nothing to search
    "course_best": SearchSpace(
        ranges={},
        fixed={
            "max_depth": 30,
            "learning_rate": 0.09585355369315604,
            "min_child_weight": 1.060597050922164,
            "reg_alpha": 0.018060244040060163,
            "reg_lambda": 0.011658731377413597,
        },
    ),
    # trees bounded by leaves. Four boosters of a fast rate and two losses, averaged, are as good as
    # those of half the rate, and cost nothing once the search has trained them
    "lossguide": SearchSpace(
        ranges={
            "max_leaves": Range(32, 192, is_log=True, is_whole=True),
            "min_child_weight": Range(5, 150, is_log=True),
            "subsample": Range(0.6, 1),
            "colsample_bytree": Range(0.4, 1),
            "reg_alpha": Range(1e-2, 10, is_log=True),
            # more of it is a slower rate in disguise
            "reg_lambda": Range(5, 100, is_log=True),
        },
        fixed=LOSSGUIDE | {"learning_rate": 0.2},
        objectives=(POISSON, SQUARED),
        max_bin=128,
        is_split_by_distance=True,
        patience=20,
        score_every=2,
        first=PORTFOLIO,
        pruning=Pruning(),
        n_boosters=4,
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
