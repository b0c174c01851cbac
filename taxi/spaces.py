"""Search spaces: the ranges of the parameters, and the settings that all trials share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp
from types import MappingProxyType
from typing import Any, NamedTuple

from . import TripError

# Trial n is suggested, and pruned, by the outcomes of trials up to n - LAG only, and waits for all
# of them; after a space's first points, it waits for all of these too. So no race matters: up to
# LAG trials at once give the same search as one at a time, bit for bit, as does a resumed search.
LAG = 8


def lag_of(parallelism: int) -> int:
    """Return the lag with which so many trials can run at once.

    Args:
        parallelism: trials at once, 0 for one per core. The search depends on it only above LAG.
    """
    return max(parallelism, LAG)


# Maximum number of trips of a split that trials use. A recent month of green taxis has 70,000; one
# of yellow taxis has 3 million, on which a trial takes minutes
SEARCH_ROWS = 1_000_000


def sample_size_for(n_trips: Iterable[int], max_rows: int) -> int:
    """Return the bound on the trips of each split that trials use; 0 if they use all.

    Args:
        n_trips: of each split.
        max_rows: of a split; 0 = all.
    """
    return max_rows if max_rows and max(n_trips) > max_rows else 0


class ParameterRange(NamedTuple):
    """The values that a parameter of xgboost may take."""

    low: float
    high: float
    is_log: bool = False  # sampled on a logarithmic scale; low is above 0
    is_integer: bool = False


class Pruning(NamedTuple):
    """When to prune a trial: if its extrapolated curve stays above the best RMSE of earlier trials.

    Trials are not compared at equal rounds: those with a low rate or few leaves start behind.
    """

    warmup_rounds: int = 12  # a shorter curve cannot be extrapolated
    n_doublings: int = 1  # of the rounds so far, over which the curve is extrapolated


class Objective(NamedTuple):
    """A loss, and the factors by which it scales sampled parameters."""

    name: str  # xgboost's
    scales: Mapping[str, float] = MappingProxyType({})  # parameter -> factor


SQUARED = Objective("reg:squarederror")
# its second derivative is the prediction in minutes, that of the squared error is 1; scaled like
# this, a point grows about the same tree with both
POISSON = Objective("count:poisson", {"min_child_weight": 7.0, "reg_lambda": 5.0, "reg_alpha": 7.0})


@dataclass(frozen=True)
class SearchSpace:
    """What is searched, and what all trials have in common."""

    ranges: Mapping[str, ParameterRange]  # by xgboost's parameter names; empty = no search
    fixed: Mapping[str, Any]
    objectives: tuple[Objective, ...] = (SQUARED,)  # trials take turns at them
    max_bin: int = 256  # of each dense column
    # trips without a distance get boosters of their own, trained with every distance hidden
    is_split_by_distance: bool = False
    rounds: int = 1000  # of a trial, at most
    patience: int = 50  # a trial ends after so many rounds without a better RMSE
    score_every: int = 1  # rounds between two scores on valid
    first: tuple[Mapping[str, float], ...] = ()  # points tried before TPE suggests any
    pruning: Pruning | None = None
    n_boosters: int = 1  # of the model, at most; their predictions are averaged

    def describe(self) -> dict[str, Any]:
        """Return all that determines a search in this space, as plain JSON values."""
        description = {name: value for name, value in vars(self).items() if name != "n_boosters"}
        description["ranges"] = {
            name: list(value_range) for name, value_range in self.ranges.items()
        }
        description["objectives"] = [[name, dict(scales)] for name, scales in self.objectives]
        return description

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
# they improved the average of their boosters; TPE continues from them. Further ones would add less
# than the other seeds of the first, which are trained anyway
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
            "max_depth": ParameterRange(4, 100, is_integer=True),
            "learning_rate": ParameterRange(exp(-3), 1, is_log=True),
            "reg_alpha": ParameterRange(exp(-5), exp(-1), is_log=True),
            "reg_lambda": ParameterRange(exp(-6), exp(-1), is_log=True),
            "min_child_weight": ParameterRange(exp(-1), exp(3), is_log=True),
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
    # trees bounded by leaves. An average of four boosters with a high learning rate and two losses
    # is as good as boosters of half the rate, and comes free with the search
    "lossguide": SearchSpace(
        ranges={
            "max_leaves": ParameterRange(32, 192, is_log=True, is_integer=True),
            "min_child_weight": ParameterRange(5, 150, is_log=True),
            "subsample": ParameterRange(0.6, 1),
            "colsample_bytree": ParameterRange(0.4, 1),
            "reg_alpha": ParameterRange(1e-2, 10, is_log=True),
            # more of it acts like a lower learning rate
            "reg_lambda": ParameterRange(5, 100, is_log=True),
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
        TripError: there is none with that name.
    """
    if name not in SEARCH_SPACES:
        raise TripError(f"Unknown search_space {name!r}. Choose from {sorted(SEARCH_SPACES)}.")
    return SEARCH_SPACES[name]
