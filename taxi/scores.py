"""Scores of predictions; each formula is defined once."""

import numpy as np

CLOSE_MINUTES = 5.0  # a prediction off by at most this much is still useful


def rmse(error: np.ndarray) -> float:
    """Compute the root mean squared error, minutes, of errors [n], n > 0."""
    return float(rmse_of_mean(np.mean(error**2)))


def rmse_of_mean(mean_square: np.ndarray | float) -> np.ndarray:
    """Compute the RMSE of a mean squared error, or of each of several, [m]."""
    return np.sqrt(mean_square)


def score_predictions(minutes: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Compute the scores of predictions against the measured minutes.

    Args:
        minutes: [n] measured, n > 0.
        predicted: [n].
    Returns:
        rmse, mae and median_ae in minutes, r2 (minus infinity if all trips took equally long), and
        within_5_min, the share of trips predicted within 5 minutes.
    """
    error = predicted - minutes
    size = np.abs(error)
    spread = np.sum((minutes - minutes.mean()) ** 2)
    return {
        "rmse": rmse(error),
        "mae": float(size.mean()),
        "median_ae": float(np.median(size)),
        "r2": float(1 - np.sum(error**2) / spread) if spread else float("-inf"),
        "within_5_min": float((size <= CLOSE_MINUTES).mean()),
    }
