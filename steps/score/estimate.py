"""What a served model knows before any drop-off: of its errors, and of the calendar."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from storage.tracking import models
from storage.uris import without_credentials
from taxi import scoring
from taxi.days import beyond_calendar
from taxi.expected_loss import EstimatedRmse, estimate_rmse
from taxi.scoring import Prepared


class LossCounter:
    """Counts a month's trips by what the model knows of its errors; memory does not grow."""

    def __init__(self, model: Any) -> None:
        """Begin; a model of an older version, or of another project, knows nothing of them."""
        self.losses, self.model = read_losses(model), models.unwrapped(model)
        self.counts = np.zeros(0 if self.losses is None else len(self.losses), np.int64)

    def add(self, prepared: Prepared, predicted: np.ndarray, taxi: str) -> None:
        """Count a batch of n rows, their drop-offs left aside.

        Args:
            prepared: the rows.
            predicted: [n] minutes of the model alone.
            taxi: key of schema.TAXIS.
        """
        rows = prepared.judgeable
        if self.losses is None or not rows.any():
            return
        frame = scoring.request_frame(prepared, taxi)
        leaf = self.model.find_leaves(frame, predicted[rows])[prepared.foreseen[rows]]
        self.counts += np.bincount(leaf, minlength=len(self.counts))

    def estimate(self) -> EstimatedRmse | None:
        """Estimate the RMSE of what was counted; None where nobody can."""
        return None if self.losses is None else estimate_rmse(self.counts, self.losses)


def read_losses(model: Any) -> np.ndarray | None:
    """Read the losses that a loaded model was saved with; None where it has none."""
    losses = getattr(models.unwrapped(model), "losses", None)
    return losses() if losses else None


def tell_unknown(model: Any, uri: str) -> None:
    """Say of a model that was saved without losses that there will be no estimate."""
    if read_losses(model) is None:
        shown = without_credentials(uri)
        print(
            f"no estimate without drop-offs: {shown} was saved without its errors. Train it again."
        )


def tell_calendar(model: Any, months: Iterable[str]) -> None:
    """Say of a model that looks at days of school which months its calendar does not reach."""
    encoder = getattr(models.unwrapped(model), "encoder", None)
    if encoder is None or "school_day" not in getattr(encoder, "names", ()):
        return
    if line := beyond_calendar(months, encoder.around.recess):
        print(line)
