"""The table of baseline estimators: the course's models, and two for scale."""

import warnings
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from . import TripError, least_squares
from .sampling import sample_rows_evenly

# n_jobs: several threads sum up trees in any order, which changes the last digit.
# max_samples: trees on fewer trips are less alike, and take 0.3 to 0.4 of the time. On months of
# 2020 to 2023 the random forest is 0.008 to 0.024 min better than one of trees that see all trips,
# with leaves of 20 (files a fifth larger), and the extra trees, whose cuts are random, within
# 0.008 min (files an eighth larger).
# min_samples_leaf (below): smaller leaves overfit, and files grow to hundreds of megabytes
FOREST = {"n_estimators": 100, "n_jobs": 1, "bootstrap": True, "max_samples": 0.3}
# takes 0.6 of the time, and is within 0.012 min
HALF_SUBSAMPLE = {"subsample": 0.5}
# most trips that a baseline is fitted on, sampled if there are more: on a year of yellow ones a
# support vector machine would take hours, and a forest's file 14 GiB
TREE_ROWS = SVR_ROWS = 300_000
LINEAR_ROWS = 1_000_000


class Baseline(NamedTuple):
    """An estimator and the features it is fitted on.

    The estimator is named rather than imported, so that a look-up does not load all of sklearn.
    """

    features: str  # key of features.FEATURE_SETS
    estimator: str  # of sklearn: module.Class
    options: dict[str, Any] = {}  # noqa: RUF012  # never written to
    # (estimator, matrix, minutes) -> the fitted estimator; replaces an `estimator.fit` whose result
    # depends on the machine, for example because sklearn uses BLAS
    custom_fit: Callable[[Any, Any, np.ndarray], Any] | None = None
    max_rows: int = 0  # most rows that it is fitted on; 0 = all

    def make(self, seed: int) -> Any:
        """Create the estimator, unfitted; the seed goes to those that draw random numbers."""
        module, _, name = self.estimator.rpartition(".")
        estimator_class = getattr(import_module(f"sklearn.{module}"), name)
        takes_seed = "random_state" in signature(estimator_class).parameters
        return estimator_class(**self.options, **({"random_state": seed} if takes_seed else {}))

    def fit(self, matrix: Any, minutes: np.ndarray, *, seed: int) -> Any:
        """Create the estimator and fit it to n rows, or to max_rows of them.

        Args:
            matrix: [n, k] of `features`.
            minutes: [n].
            seed: of the estimator, and of the rows that are drawn.
        """
        estimator = self.make(seed)
        matrix, minutes = self.sample(matrix, minutes, seed=seed)
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # models that have not converged are kept, and reported through `has_converged`
            warnings.simplefilter("ignore", ConvergenceWarning)
            if self.custom_fit:
                return self.custom_fit(estimator, matrix, minutes)
            return estimator.fit(matrix, minutes)

    def sample(self, matrix: Any, minutes: np.ndarray, *, seed: int) -> tuple[Any, np.ndarray]:
        """Draw the rows that it is fitted on; all of them if they are at most max_rows."""
        if not self.is_bounded(len(minutes)):
            return matrix, minutes
        rows = sample_rows_evenly(len(minutes), self.max_rows, seed=seed)
        return matrix[rows], minutes[rows]

    def is_bounded(self, n_rows: int) -> bool:
        """Whether it is fitted on only some of n_rows."""
        return 0 < self.max_rows < n_rows

    def format_n_fitted(self, n_rows: int) -> str:
        """Say how many of n_rows it is fitted on: 300,000 of 2,900,000, or 57,651 if on all."""
        return f"{self.max_rows:,} of {n_rows:,}" if self.is_bounded(n_rows) else f"{n_rows:,}"


def fit_hist_gradient_boosting(estimator: Any, matrix: Any, minutes: np.ndarray) -> Any:
    """Fit HistGradientBoosting, and reset the thread count it stores, which is not of the model."""
    estimator.fit(matrix, minutes)
    estimator._bin_mapper.n_threads = 1
    return estimator


def has_converged(estimator: Any) -> bool:
    """Whether a fitted linear model converged within its iterations; True for other models."""
    n_rounds, max_iterations = (getattr(estimator, name, None) for name in ("n_iter_", "max_iter"))
    if not hasattr(estimator, "coef_") or n_rounds is None or max_iterations is None:
        return True
    return bool(np.max(n_rounds) < max_iterations)


def _lasso(alpha: float) -> Baseline:
    return Baseline(
        "course",
        "linear_model.Lasso",
        {"alpha": alpha},
        custom_fit=least_squares.fit_lasso,
        max_rows=LINEAR_ROWS,
    )


BASELINES: dict[str, Baseline] = {
    "mean": Baseline("compact", "dummy.DummyRegressor"),
    "linear_regression": Baseline(
        "course",
        "linear_model.LinearRegression",
        custom_fit=least_squares.fit_linear_regression,
        max_rows=LINEAR_ROWS,
    ),
    "lasso_0.01": _lasso(0.01),
    "lasso_0.1": _lasso(0.1),
    # unlike least squares, it is not driven by the meter's outliers to a small weight of distance:
    # one absurd distance among the validation trips costs it hundreds of minutes
    "linear_svr": Baseline("course", "svm.LinearSVR", max_rows=SVR_ROWS),
    "random_forest": Baseline(
        "compact",
        "ensemble.RandomForestRegressor",
        {**FOREST, "min_samples_leaf": 7},
        max_rows=TREE_ROWS,
    ),
    "extra_trees": Baseline(
        "compact",
        "ensemble.ExtraTreesRegressor",
        {**FOREST, "min_samples_leaf": 5},
        max_rows=TREE_ROWS,
    ),
    "gradient_boosting": Baseline(
        "compact",
        "ensemble.GradientBoostingRegressor",
        HALF_SUBSAMPLE,
        max_rows=TREE_ROWS,
    ),
    "hist_gradient_boosting": Baseline(
        "compact", "ensemble.HistGradientBoostingRegressor", custom_fit=fit_hist_gradient_boosting
    ),
}


def select_baselines(text: str) -> dict[str, Baseline]:
    """Return the baselines of a list of names, in its order.

    Args:
        text: `all`, or comma-separated names of BASELINES.

    Raises:
        TripError: a name is not in BASELINES, or the list is empty.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return BASELINES
    for name in names or [text]:
        if name not in BASELINES:
            raise TripError(f"Unknown model {name!r}. Choose all or from {', '.join(BASELINES)}.")
    return {name: BASELINES[name] for name in names}
