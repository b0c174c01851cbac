"""The table of baseline estimators: the course's models, and two for scale."""

import warnings
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from . import TripError, least_squares
from .sampling import draw_rows

# leaves of few trips let a forest learn trips by heart, and its file grow to hundreds of
# megabytes; on one thread, because several add up their trees' answers in any order, and the last
# digit shows it. Trees that see fewer trips are more unlike each other, and made in 0.3 to 0.4 of
# the time: on months of 2020 to 2023 0.008 to 0.024 min better than trees that see all, with
# leaves of 20 (files a fifth larger); the extra trees, whose cuts are drawn by chance, within
# 0.008 min (files an eighth larger)
FOREST = {"n_estimators": 100, "n_jobs": 1, "bootstrap": True, "max_samples": 0.3}
# the same in 0.6 of the time, and within 0.012 min
HALF_THE_TRIPS_EACH = {"subsample": 0.5}
# trips that a baseline is fitted on, drawn where there are more: of a year of yellow ones a support
# vector machine would take hours, and a forest keep a file of 14 GiB
TREE_ROWS = SVR_ROWS = 300_000
LINEAR_ROWS = 1_000_000


class Baseline(NamedTuple):
    """An estimator and the features it is fitted on.

    The estimator is named rather than imported: looking up a name need not load all of sklearn.
    """

    features: str  # key of features.FEATURE_SETS
    estimator: str  # of sklearn: module.Class
    options: dict[str, Any] = {}  # noqa: RUF012  # nobody writes to it
    # (estimator, matrix, minutes) -> it, fitted; takes the place of `estimator.fit` where what that
    # gives depends on the machine, as it does where sklearn uses BLAS
    fit_otherwise: Callable[[Any, Any, np.ndarray], Any] | None = None
    max_rows: int = 0  # that it is fitted on; 0 = all

    def make(self, seed: int) -> Any:
        """Create the estimator, unfitted; the seed goes to those that draw random numbers."""
        module, _, name = self.estimator.rpartition(".")
        kind = getattr(import_module(f"sklearn.{module}"), name)
        takes_seed = "random_state" in signature(kind).parameters
        return kind(**self.options, **({"random_state": seed} if takes_seed else {}))

    def fit(self, matrix: Any, minutes: np.ndarray, *, seed: int) -> Any:
        """Create the estimator and fit it to n rows, or to max_rows of them.

        Args:
            matrix: [n, k] of these features.
            minutes: [n].
            seed: as of `make`, and of the rows that are drawn.
        """
        estimator = self.make(seed)
        matrix, minutes = self.draw(matrix, minutes, seed=seed)
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # models that have not converged are kept, and `has_converged` tells of them in the run
            warnings.simplefilter("ignore", ConvergenceWarning)
            if self.fit_otherwise:
                return self.fit_otherwise(estimator, matrix, minutes)
            return estimator.fit(matrix, minutes)

    def draw(self, matrix: Any, minutes: np.ndarray, *, seed: int) -> tuple[Any, np.ndarray]:
        """Draw the rows that it is fitted on; all, where there are no more."""
        if not self.is_bounded(len(minutes)):
            return matrix, minutes
        drawn = draw_rows(len(minutes), self.max_rows, seed=seed)
        return matrix[drawn], minutes[drawn]

    def is_bounded(self, n_rows: int) -> bool:
        """Whether it is fitted on fewer than n_rows where there are so many."""
        return 0 < self.max_rows < n_rows

    def n_fitted(self, n_rows: int) -> str:
        """Say how many of n_rows it is fitted on: 300,000 of 2,900,000; 57,651 where on all."""
        return f"{self.max_rows:,} of {n_rows:,}" if self.is_bounded(n_rows) else f"{n_rows:,}"


def fit_on_any_threads(estimator: Any, matrix: Any, minutes: np.ndarray) -> Any:
    """Fit HistGradientBoosting, which keeps how many threads it had: no part of the model."""
    estimator.fit(matrix, minutes)
    estimator._bin_mapper.n_threads = 1
    return estimator


def has_converged(estimator: Any) -> bool:
    """Whether a fitted linear model met its tolerance in its rounds; trees have none to meet."""
    n_rounds, n_most = (getattr(estimator, name, None) for name in ("n_iter_", "max_iter"))
    if not hasattr(estimator, "coef_") or n_rounds is None or n_most is None:
        return True
    return bool(np.max(n_rounds) < n_most)


def _lasso(alpha: float) -> Baseline:
    return Baseline(
        "course",
        "linear_model.Lasso",
        {"alpha": alpha},
        fit_otherwise=least_squares.fit_lasso,
        max_rows=LINEAR_ROWS,
    )


BASELINES: dict[str, Baseline] = {
    "mean": Baseline("compact", "dummy.DummyRegressor"),
    "linear_regression": Baseline(
        "course",
        "linear_model.LinearRegression",
        fit_otherwise=least_squares.fit_sparse,
        max_rows=LINEAR_ROWS,
    ),
    "lasso_0.01": _lasso(0.01),
    "lasso_0.1": _lasso(0.1),
    # unlike least squares it never learns to distrust the meter: one absurd distance among the
    # validation trips costs it hundreds of minutes
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
        HALF_THE_TRIPS_EACH,
        max_rows=TREE_ROWS,
    ),
    "hist_gradient_boosting": Baseline(
        "compact", "ensemble.HistGradientBoostingRegressor", fit_otherwise=fit_on_any_threads
    ),
}


def select_baselines(text: str) -> dict[str, Baseline]:
    """Return the baselines of a list of names, in its order.

    Args:
        text: `all`, or names of BASELINES with commas between them.

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
