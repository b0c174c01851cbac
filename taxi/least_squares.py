"""Linear models on a sparse matrix, the same to the last digit on any machine."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Product = Callable[[np.ndarray], np.ndarray]


class Centred(NamedTuple):
    """A matrix [n, k] minus its columns' means, as its products with vectors."""

    times: Product  # [k] -> [n]
    transposed_times: Product  # [n] -> [k]


def fit_linear_regression(estimator: Any, matrix: Any, minutes: np.ndarray) -> Any:
    """Fit sklearn's LinearRegression to n rows; return it.

    sklearn uses LSQR, which stops far from the least squares if a few distances are absurd. After
    how many steps it stops, and where, then depends on the last digits of BLAS. So LSQR's steps
    are made here, with every sum in a fixed order.

    Args:
        estimator: a LinearRegression with an intercept, unfitted.
        matrix: CSR [n, k].
        minutes: [n].
    """
    means = means_of(matrix)
    centred = Centred(
        lambda vector: matrix @ vector - (means * vector).sum(),
        lambda vector: matrix.T @ vector - means * vector.sum(),
    )
    estimator.coef_ = lsqr(centred, minutes - minutes.mean(), tolerance=estimator.tol)
    set_intercept(estimator, means, minutes)
    estimator.n_features_in_ = matrix.shape[1]
    return estimator


def fit_lasso(estimator: Any, matrix: Any, minutes: np.ndarray) -> Any:
    """Fit sklearn's Lasso to n rows; return it.

    sklearn computes the coefficients in loops of its own, but uses BLAS for the intercept, so that
    is set again, and for the dual gap, so that is deleted: its last digit differs even between two
    fits on one machine.

    Args:
        estimator: a Lasso with an intercept, unfitted.
        matrix: CSR [n, k].
        minutes: [n].
    """
    estimator.fit(matrix, minutes)
    set_intercept(estimator, means_of(matrix), minutes)
    del estimator.dual_gap_
    return estimator


def means_of(matrix: Any) -> np.ndarray:
    """Compute the mean of each column of a CSR matrix [n, k], float64 [k]."""
    return np.asarray(matrix.sum(axis=0)).ravel() / matrix.shape[0]


def set_intercept(estimator: Any, means: np.ndarray, minutes: np.ndarray) -> None:
    """Set a linear model's intercept so that it predicts the mean minutes [n] at the means [k]."""
    estimator.intercept_ = float(minutes.mean() - (means * estimator.coef_).sum())


def lsqr(matrix: Centred, target: np.ndarray, *, tolerance: float) -> np.ndarray:
    """Approximate the x that minimises |matrix x - target|² to within a tolerance, float64 [k].

    Source: Paige & Saunders, LSQR: an algorithm for sparse linear equations and sparse least
        squares, 1982; its stopping rules 1 and 2, both tolerances the same.
    """
    left, beta = _unit(target)
    right, alpha = _unit(matrix.transposed_times(left))
    x, direction = np.zeros(len(right)), right
    target_norm, phi_bar, rho_bar, squared_norm = beta, beta, alpha, 0.0
    for _ in range(2 * len(right) if alpha else 0):
        left, beta = _unit(matrix.times(right) - alpha * left)
        squared_norm += alpha**2 + beta**2
        right, alpha = _unit(matrix.transposed_times(left) - beta * right)
        rho = np.sqrt(rho_bar**2 + beta**2)
        cosine, sine = rho_bar / rho, beta / rho
        x = x + cosine * phi_bar / rho * direction
        direction = right - sine * alpha / rho * direction
        phi, phi_bar, rho_bar = cosine * phi_bar, sine * phi_bar, -cosine * alpha
        norm, slope = np.sqrt(squared_norm), alpha * abs(sine * phi)
        is_solved = phi_bar <= tolerance * (target_norm + norm * _norm(x))
        if is_solved or slope <= tolerance * norm * phi_bar:
            break
    return x


def _unit(vector: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a vector scaled to length 1, and its length; a zero vector is returned unchanged."""
    length = _norm(vector)
    return (vector / length if length else vector), length


def _norm(vector: np.ndarray) -> float:
    return float(np.sqrt((vector * vector).sum()))
