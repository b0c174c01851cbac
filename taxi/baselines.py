"""The table of baseline estimators: the course's models, and two for scale."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import Lasso, LinearRegression
from sklearn.svm import LinearSVR

from . import TripError

# small leaves let a forest learn trips by heart, and its file grow to hundreds of megabytes; on one
# thread, because several add up their trees' answers in any order, and the last digit shows it
FOREST = {"n_estimators": 100, "min_samples_leaf": 20, "n_jobs": 1}


class Baseline(NamedTuple):
    """An estimator and the features it is fitted on."""

    features: str  # key of features.FEATURE_SETS
    make: Callable[[int], Any]  # seed -> unfitted estimator


BASELINES: dict[str, Baseline] = {
    "mean": Baseline("compact", lambda seed: DummyRegressor()),
    "linear_regression": Baseline("course", lambda seed: LinearRegression()),
    "lasso_0.01": Baseline("course", lambda seed: Lasso(alpha=0.01)),
    "lasso_0.1": Baseline("course", lambda seed: Lasso(alpha=0.1)),
    # unlike least squares it never learns to distrust the meter: one absurd distance among the
    # validation trips costs it hundreds of minutes
    "linear_svr": Baseline("course", lambda seed: LinearSVR(random_state=seed)),
    "random_forest": Baseline(
        "compact", lambda seed: RandomForestRegressor(**FOREST, random_state=seed)
    ),
    "extra_trees": Baseline(
        "compact", lambda seed: ExtraTreesRegressor(**FOREST, random_state=seed)
    ),
    "gradient_boosting": Baseline(
        "compact", lambda seed: GradientBoostingRegressor(random_state=seed)
    ),
    "hist_gradient_boosting": Baseline(
        "compact", lambda seed: HistGradientBoostingRegressor(random_state=seed)
    ),
}


def select(text: str) -> dict[str, Baseline]:
    """Pick baselines by name: `all`, or a comma-separated list.

    Raises:
        TripError: a name is not in BASELINES, or there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return BASELINES
    for name in names or [text]:
        if name not in BASELINES:
            raise TripError(f"Unknown model {name!r}. Choose all or from {', '.join(BASELINES)}.")
    return {name: BASELINES[name] for name in names}
