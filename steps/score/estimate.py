"""Estimate a month's RMSE before its drop-offs are known, and check the model's calendar."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from storage.tracking import models
from storage.uris import without_credentials
from taxi import scoring
from taxi.days import describe_months_beyond_calendar
from taxi.expected_loss import EstimatedRmse, estimate_rmse
from taxi.scoring import PreparedRows
from taxi.spread import MIN_ROWS


class LossCounter:
    """Counts a month's trips by the model's expected loss, in constant memory."""

    def __init__(self, model: Any) -> None:
        """Start at zero; a model without losses, of an older version for one, counts nothing."""
        self.losses, self.model = read_losses(model), models.unwrapped(model)
        self.counts = np.zeros(0 if self.losses is None else len(self.losses), np.int64)

    def add(self, prepared: PreparedRows, predicted: np.ndarray, taxi: str) -> None:
        """Count a batch of n rows, without looking at their drop-offs.

        Args:
            prepared: the rows.
            predicted: [n] minutes, without a live level.
            taxi: key of schema.TAXIS.
        """
        rows = prepared.predictable
        if self.losses is None or not rows.any():
            return
        frame = scoring.request_frame(prepared, taxi)
        leaf = self.model.find_leaves(frame, predicted[rows])[prepared.eligible_at_pickup[rows]]
        self.counts += np.bincount(leaf, minlength=len(self.counts))

    def estimate(self) -> EstimatedRmse | None:
        """Estimate the RMSE of the trips counted; None if that is not possible."""
        return None if self.losses is None else estimate_rmse(self.counts, self.losses)


def read_losses(model: Any) -> np.ndarray | None:
    """Read the expected losses that a model was saved with; None if it has none."""
    losses = getattr(models.unwrapped(model), "losses", None)
    return losses() if losses else None


def print_no_estimate(model: Any, uri: str) -> None:
    """Print that there will be no estimate, if the model was saved without losses."""
    if read_losses(model) is None:
        shown = without_credentials(uri)
        print(
            f"no estimate without drop-offs: {shown} was saved without its errors. Train it again, "
            f"on at least {MIN_ROWS} valid trips."
        )


def print_months_beyond_calendar(model: Any, months: Iterable[str]) -> None:
    """Print which months the school calendar does not cover, if the model has that feature."""
    encoder = getattr(models.unwrapped(model), "encoder", None)
    if encoder is None or "school_day" not in getattr(encoder, "names", ()):
        return
    if line := describe_months_beyond_calendar(months, encoder.around.recess):
        print(line)
