"""The spread of trips around their predictions: quantiles of the minutes, and exceedance risk.

How far a model is off depends on the trip. So a tree groups the errors it made on the validation
trips, to which it was not fitted, and each leaf keeps the quantiles of its errors. A quantile of a
trip's minutes is its prediction plus that quantile of its leaf's errors.

Source: Vovk et al., Mondrian confidence machine, 2003 (calibration within groups); Papadopoulos et
al., Inductive confidence machines for regression, 2002 (errors on rows kept apart).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .expected_loss import measure_losses
from .leaves import Leaves, grow_leaves, restore_leaves
from .schema import Trips, clean_miles

LEVELS = np.array([0, 0.005, *(percent / 100 for percent in range(1, 100)), 0.995, 1])
MIN_ROWS = 20  # fewer errors are too few to estimate quantiles
LEAF_ROWS = 400  # minimum errors in a leaf; the level of their 0.1 quantile has a SE of 1.5 %
MAX_LEAVES = 256  # of one tree, however many trips there are
ERROR_CLIP_MINUTES = 30.0  # minutes; errors are clipped to this when splits are chosen
SHORTEST_MINUTES = 0.5  # minutes; no quantile is shorter
N_IMPLAUSIBLE_ROWS = 200  # fewer trips with an implausible distance get no table of their own


@dataclass(frozen=True)
class ErrorTable:
    """Quantiles of a model's errors, measured - predicted minutes, by leaf."""

    leaves: Leaves
    errors: np.ndarray  # float64 [number of leaves, len(LEVELS)], ascending from left to right
    losses: np.ndarray | None = None  # by `measure_losses`; None if the model was saved without

    def quantiles(self, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Look up quantiles of the errors for n rows, float64 [n, k].

        Args:
            values: [n, c], as `error_features` gives them.
            levels: [k], 0..1.
        """
        leaf = self.leaves.find(values)[:, None]
        right = np.searchsorted(LEVELS[1:-1], levels, side="right") + 1
        weight = (levels - LEVELS[right - 1]) / (LEVELS[right] - LEVELS[right - 1])
        return self.errors[leaf, right - 1] * (1 - weight) + self.errors[leaf, right] * weight

    def state(self) -> dict[str, Any]:
        """Return the table as plain JSON values."""
        state = {"leaves": self.leaves.state(), "errors": self.errors.tolist()}
        return state | ({} if self.losses is None else {"losses": self.losses.tolist()})

    def share_above(self, values: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Look up the share of errors in each row's leaf above a given one, 0..1, float64 [n].

        Args:
            values: [n, c], as `error_features` gives them.
            error: [n] minutes.
        """
        leaf = self.leaves.find(values)
        share = np.empty(len(leaf))
        for number in np.unique(leaf):
            rows = leaf == number
            share[rows] = 1 - np.interp(error[rows], self.errors[number], LEVELS)
        return share


@dataclass(frozen=True)
class Spread:
    """The errors of a model on the validation trips, by what is known of their distance.

    A trip without a plausible distance has either none (it was not planned) or a wrong one (its
    meter says 0 miles, or 1,000). The model predicts both alike, but errs more on the latter.
    """

    planned: ErrorTable
    unplanned: ErrorTable
    implausible: ErrorTable

    def quantiles(self, trips: Trips, predicted: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Compute k quantiles of each trip's minutes, float64 [n, k], at least SHORTEST_MINUTES.

        Args:
            trips: n trips.
            predicted: [n] minutes, by the model whose errors these are.
            levels: k levels, each above 0 and below 1.
        """
        minutes = np.empty((len(trips), len(levels)))
        for rows, table in self._parts(trips):
            values = error_features(trips.take(rows), predicted[rows])
            minutes[rows] = predicted[rows, None] + table.quantiles(values, np.asarray(levels))
        return np.maximum(minutes, SHORTEST_MINUTES)

    def longer_than(self, trips: Trips, predicted: np.ndarray, minutes: float) -> np.ndarray:
        """Compute the probability that each of n trips takes longer, 0..1, float64 [n].

        Args:
            trips: n trips.
            predicted: [n] minutes, by the model whose errors these are.
            minutes: duration to exceed.
        """
        if minutes < SHORTEST_MINUTES:
            return np.ones(len(trips))
        share = np.empty(len(trips))
        for rows, table in self._parts(trips):
            values = error_features(trips.take(rows), predicted[rows])
            share[rows] = table.share_above(values, minutes - predicted[rows])
        return share

    def losses(self) -> np.ndarray | None:
        """Return the losses of all tables' leaves, stacked; None if any table lacks them."""
        parts = [table.losses for table in self._tables()]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None

    def find_leaves(self, trips: Trips, predicted: np.ndarray) -> np.ndarray:
        """Find the row of `losses` that each of n trips belongs to, int [n]."""
        tables = self._tables()
        ends = np.cumsum([len(table.errors) for table in tables])
        first = {
            id(table): end - len(table.errors) for table, end in zip(tables, ends, strict=True)
        }
        leaf = np.empty(len(trips), np.int64)
        for rows, table in self._parts(trips):
            values = error_features(trips.take(rows), predicted[rows])
            leaf[rows] = first[id(table)] + table.leaves.find(values)
        return leaf

    def _tables(self) -> list[ErrorTable]:
        return [self.planned, self.unplanned, self.implausible]

    def _parts(self, trips: Trips) -> Iterator[tuple[np.ndarray, ErrorTable]]:
        """Yield each table that has rows among the trips, with those rows."""
        has_no_distance, missing = np.isnan(clean_miles(trips)), np.isnan(trips.distance_miles)
        masks = (~has_no_distance, self.planned), (missing, self.unplanned)
        for mask, table in (*masks, (has_no_distance & ~missing, self.implausible)):
            if len(rows := np.flatnonzero(mask)):
                yield rows, table

    def state(self) -> dict[str, Any]:
        """Return the spread as plain JSON values; `restore_spread` rebuilds it."""
        return {name: table.state() for name, table in vars(self).items()}


def restore_spread(state: Mapping[str, Any]) -> Spread:
    """Rebuild a spread from its `state`."""
    tables = {
        name: ErrorTable(
            restore_leaves(table["leaves"]),
            np.array(table["errors"], np.float64),
            np.array(table["losses"], np.float64) if "losses" in table else None,
        )
        for name, table in state.items()
    }
    return Spread(**tables)


class Calibration(NamedTuple):
    """Trips to which a model was not fitted, and its predictions of them."""

    trips: Trips  # n
    predicted: np.ndarray  # [n] minutes
    # [n] minutes predicted with every distance removed: a caller may know none, and the months hold
    # too few trips without a distance to measure that case
    predicted_without_distance: np.ndarray

    def take(self, rows: np.ndarray) -> "Calibration":
        """Select rows by index or mask."""
        return Calibration(
            self.trips.take(rows), self.predicted[rows], self.predicted_without_distance[rows]
        )


def fit_spread(calibration: Calibration) -> Spread | None:
    """Measure the errors of a model on n trips; None if n is below MIN_ROWS."""
    trips, predicted, predicted_without_distance = calibration
    if len(trips) < MIN_ROWS:
        return None
    # leaves split by distance would be useless for trips without one
    table_without_distance = _fit_table(trips.without_distance(), predicted_without_distance)
    has_no_distance = np.isnan(clean_miles(trips))
    is_implausible = has_no_distance & ~np.isnan(trips.distance_miles)

    def fit_part(mask: np.ndarray, min_rows: int) -> ErrorTable:
        return (
            _fit_table(trips.take(mask), predicted[mask])
            if mask.sum() >= min_rows
            else table_without_distance
        )

    return Spread(
        fit_part(~has_no_distance, MIN_ROWS),
        table_without_distance,
        fit_part(is_implausible, N_IMPLAUSIBLE_ROWS),
    )


def _fit_table(trips: Trips, predicted: np.ndarray) -> ErrorTable:
    values, error = error_features(trips, predicted), trips.trip_minutes - predicted
    clipped = np.clip(error, -ERROR_CLIP_MINUTES, ERROR_CLIP_MINUTES)
    min_rows = max(LEAF_ROWS, len(error) // MAX_LEAVES)
    # the signed error groups rows by bias, the absolute error by spread
    leaves = grow_leaves(values, np.column_stack([clipped, np.abs(clipped)]), min_rows=min_rows)
    leaf = leaves.find(values)
    quantiles = np.array([_quantiles(error[leaf == n]) for n in range(leaf.max() + 1)])
    order = np.argsort(trips.pickup_at, kind="stable")
    return ErrorTable(leaves, quantiles, measure_losses(leaves, values[order], error[order]))


def _quantiles(error: np.ndarray) -> np.ndarray:
    """Compute the quantiles at LEVELS of the errors [n], float64 [len(LEVELS)].

    Weibull's plotting position q (n + 1) is the finite-sample correction: a new error is equally
    likely to take any of the n + 1 ranks among the n measured ones.
    """
    return np.round(np.quantile(error, LEVELS, method="weibull"), 3)


def error_features(trips: Trips, predicted: np.ndarray) -> np.ndarray:
    """Compute what the errors of n trips are grouped by, float64 [n, 6]; NaN without a distance."""
    miles, at = clean_miles(trips), trips.pickup_at.astype("datetime64[m]").astype(np.int64)
    weekday = (at // 1440 + 3) % 7  # 1970-01-01 was a Thursday
    is_one_zone = trips.pickup_zone == trips.dropoff_zone
    miles_per_minute = miles / np.maximum(predicted, SHORTEST_MINUTES)
    return np.column_stack([predicted, miles, miles_per_minute, at % 1440, weekday, is_one_zone])
