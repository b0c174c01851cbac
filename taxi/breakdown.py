"""The errors of predictions in the detail that the report draws: days, zones, calibration."""

from typing import Any, NamedTuple

import numpy as np

from .evaluation import GroupErrors, calibration_bins
from .schema import Trips, zone_or_0

# minutes; errors beyond the ends count in the end bins
RESIDUAL_EDGES = np.arange(-30.0, 31.0, 1.0)


class CalibrationBin(NamedTuple):
    """Trips with about equal predictions."""

    n_trips: int
    predicted: float  # mean, minutes
    measured: float  # mean, minutes


class Breakdown(NamedTuple):
    """The errors of n trips."""

    days: list[GroupErrors]  # by day of the pickup, 2021-02-01, in their order
    zones: list[GroupErrors]  # by pickup zone, its id
    calibration: list[CalibrationBin]  # from short to long predictions
    residuals: list[int]  # trips by predicted - measured, counted in RESIDUAL_EDGES

    def state(self) -> dict[str, Any]:
        """Return the breakdown as plain JSON values; `restore` rebuilds it."""
        parts = {name: [one._asdict() for one in getattr(self, name)] for name in self._fields[:3]}
        return parts | {"residuals": self.residuals}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Breakdown":
        """Rebuild it from its `state`."""
        days, zones = ([GroupErrors(**one) for one in state[name]] for name in ("days", "zones"))
        bins = [CalibrationBin(**one) for one in state["calibration"]]
        return cls(days, zones, bins, state["residuals"])


def break_down(trips: Trips, predicted: np.ndarray) -> Breakdown:
    """Break the errors of predictions down.

    Args:
        trips: n trips with their minutes, n > 0.
        predicted: [n] minutes.
    """
    error = predicted - trips.trip_minutes
    day = trips.pickup_at.astype("M8[D]").astype(np.int64)
    first = day.min()
    names = np.arange(first, day.max() + 1).astype("M8[D]").astype(str).tolist()
    zone = zone_or_0(trips.pickup_zone)
    clipped = np.clip(error, RESIDUAL_EDGES[0], RESIDUAL_EDGES[-1])
    return Breakdown(
        days=_groups("day", day - first, names, error),
        zones=_groups("zone", zone, [str(number) for number in range(zone.max() + 1)], error),
        calibration=[
            CalibrationBin(
                len(rows), float(predicted[rows].mean()), float(trips.trip_minutes[rows].mean())
            )
            for rows in calibration_bins(predicted)
        ],
        residuals=np.histogram(clipped, RESIDUAL_EDGES)[0].tolist(),
    )


def _groups(kind: str, key: np.ndarray, names: list[str], error: np.ndarray) -> list[GroupErrors]:
    """Group n errors by their key, 0..len(names) - 1; keys without errors are left out."""
    count = np.bincount(key, minlength=len(names))
    present = np.flatnonzero(count)
    square, absolute, signed = (
        np.bincount(key, values, minlength=len(names))[present] / count[present]
        for values in (error**2, np.abs(error), error)
    )
    columns = (np.sqrt(square), absolute, signed)
    return [
        GroupErrors(kind, names[index], int(count[index]), *map(float, values))
        for index, *values in zip(present.tolist(), *columns, strict=True)
    ]
