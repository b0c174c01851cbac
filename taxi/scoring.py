"""Prepare a month's raw rows for a model, and add up its prediction errors, batch by batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from math import sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .cleaning import (
    durations,
    kept_by_rules,
    microseconds,
    month_bounds,
    read_columns,
    to_minutes,
)
from .drift import MonthScores, count_predictions
from .expected_loss import EstimatedRmse
from .profile import Profile
from .schema import (
    INPUTS,
    MAX_MINUTES,
    MIN_MINUTES,
    TRIPS,
    ZONES,
    Trips,
    input_names,
    input_requirements,
    is_plausible_distance,
    raw_columns,
    select_taxi,
)
from .scores import rmse_of_mean
from .worst import WorstTrip, find_worst, join_worst

# roles that a file to score may lack: a future trip has no drop-off
OPTIONAL_ROLES = frozenset({"dropoff_at", *INPUTS}) - {
    role for role, is_required in INPUTS.items() if is_required
}


class PreparedRows(NamedTuple):
    """A batch of n raw rows, none left out."""

    columns: dict[str, pa.Array]  # role -> [n]
    predictable: np.ndarray  # bool [n]: the row has what a model needs to predict it
    eligible: np.ndarray  # bool [n]: nothing known of the trip would exclude it from training
    minutes: np.ndarray  # [n], NaN where the drop-off is unknown
    eligible_at_pickup: np.ndarray  # bool [n]: as `eligible`, but by what is known at pickup only
    unreadable: str = ""  # description of the first unreadable value; empty if there is none


def prepare_batch(batch: pa.RecordBatch, *, taxi: str, month: str) -> PreparedRows:
    """Read n raw rows, and decide which can be predicted and which count towards the errors.

    Args:
        batch: n rows with the TLC's columns for this taxi; others are ignored.
        taxi: key of schema.TAXIS.
        month: YYYY-MM, the month whose file this is.

    Raises:
        TripError: a required column is missing or has the wrong type, or a value is ambiguous.
    """
    rows = read_columns(batch, taxi, optional_roles=OPTIONAL_ROLES)
    columns = rows.columns
    types = [(column.role, column.type) for column in raw_columns(taxi)]
    for role, kind in (*types, ("distance_miles", pa.float64())):
        columns.setdefault(role, pa.nulls(batch.num_rows, kind))
    predictable = np.ones(batch.num_rows, bool)
    for role in (role for role, is_required in input_requirements(taxi).items() if is_required):
        predictable &= columns[role].is_valid().to_numpy(zero_copy_only=False)
    # an app ride with stated seconds but no drop-off is not a trip
    durations_us = pc.if_else(columns["dropoff_at"].is_valid(), durations(columns), None)
    minutes = to_minutes(durations_us).to_numpy(zero_copy_only=False)
    start, end = (microseconds(bound) for bound in month_bounds(month))
    pickup_us = columns["pickup_at"].cast(pa.int64()).fill_null(start - 1).to_numpy()
    eligible_at_pickup = (
        predictable & (pickup_us >= start) & (pickup_us < end) & rows.readable(INPUTS)
    )
    for role in () if select_taxi(taxi).zones_are_optional else ZONES:
        eligible_at_pickup &= columns[role].fill_null(0).to_numpy() >= 1
    eligible = eligible_at_pickup & rows.readable()
    for test in kept_by_rules(columns):
        eligible &= test.fill_null(True).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        eligible &= ~((minutes < MIN_MINUTES) | (minutes > MAX_MINUTES))
    return PreparedRows(
        columns, predictable, eligible, minutes, eligible_at_pickup, rows.unreadable
    )


def request_frame(prepared: PreparedRows, taxi: str) -> pd.DataFrame:
    """Convert the m <= n predictable rows to the frame sent to a model, one type per column."""
    rows = pa.array(prepared.predictable)
    roles = input_names(taxi).items()
    columns = prepared.columns
    return pd.DataFrame({name: columns[role].filter(rows).to_numpy(False) for role, name in roles})


def prediction_batch(
    prepared: PreparedRows,
    predicted: np.ndarray,
    *,
    taxi: str,
    model: str,
    base: np.ndarray | None = None,
    quantiles: Mapping[str, np.ndarray] | None = None,
) -> pa.RecordBatch:
    """Append prediction, model, error and eligibility to the raw rows, n rows in their order.

    Args:
        prepared: n rows.
        predicted: [n] minutes, NaN where a row is not predictable.
        taxi: key of schema.TAXIS.
        model: URI of the model that predicted.
        base: [n] minutes by the model alone, if `predicted` includes the live level.
        quantiles: column -> [n] minutes, NaN where `predicted` is NaN.
    """
    columns = {c.name: prepared.columns[c.role] for c in raw_columns(taxi)}
    columns["prediction"] = pa.array(predicted, from_pandas=True)
    if base is not None:
        columns["prediction_base"] = pa.array(base, from_pandas=True)
    for name, minutes in (quantiles or {}).items():
        columns[name] = pa.array(minutes, from_pandas=True)
    columns["distance_known"] = pa.array(is_distance_known(prepared))
    columns["model"] = pa.repeat(model, len(predicted))
    columns["error"] = pa.array(predicted - prepared.minutes, from_pandas=True)
    columns["eligible"] = pa.array(prepared.eligible & np.isfinite(prepared.minutes))
    return pa.RecordBatch.from_pydict(columns)


def is_distance_known(prepared: PreparedRows) -> np.ndarray:
    """Tell which of n rows have a plausible distance, bool [n]."""
    return is_plausible_distance(prepared.columns["distance_miles"].to_numpy(zero_copy_only=False))


@dataclass
class ErrorSums:
    """Sums of the errors of n trips, minutes."""

    n: int = 0
    error: float = 0.0
    size: float = 0.0
    square: float = 0.0
    fourth: float = 0.0

    def add(self, error: np.ndarray) -> None:
        """Add the errors of m more trips, [m] minutes."""
        self.n += len(error)
        self.error += float(error.sum())
        self.size += float(np.abs(error).sum())
        self.square += float((error**2).sum())
        self.fourth += float((error**4).sum())

    def scores(self) -> dict[str, float]:
        """Return rmse, mae and bias in minutes; an empty dict if there are no trips."""
        if not self.n:
            return {}
        rmse = float(rmse_of_mean(self.square / self.n))
        return {"rmse": rmse, "mae": self.size / self.n, "bias": self.error / self.n}

    def rmse_relative_se(self) -> float:
        """Return the standard error of rmse as a share of rmse; 0 if all errors are 0."""
        if not self.square:
            return 0.0
        spread = self.n * self.fourth / self.square**2 - 1  # of the squared errors
        return 0.5 * sqrt(max(spread, 0.0) / self.n)


@dataclass
class MonthTally:
    """Counts and errors of the rows of a month so far, in memory that does not grow."""

    n_rows: int = 0
    n_predicted: int = 0
    n_live: int = 0  # rows whose prediction includes the live level
    unreadable: str = ""  # description of the first unreadable value; empty if there is none
    profile: Profile = field(default_factory=Profile)  # of the eligible trips
    dates: set[date] = field(default_factory=set)  # pickup days of the eligible trips
    # by the model alone: drift is measured without the live level
    predictions: np.ndarray = field(default_factory=lambda: count_predictions(np.empty(0)))
    total: ErrorSums = field(default_factory=ErrorSums)
    base: ErrorSums = field(default_factory=ErrorSums)  # by the model alone
    days: dict[str, ErrorSums] = field(default_factory=dict)
    base_days: dict[str, ErrorSums] = field(default_factory=dict)
    estimated: EstimatedRmse | None = None  # RMSE of the model alone, estimated without drop-offs
    worst: list[WorstTrip] = field(default_factory=list)
    within: dict[str, int] = field(default_factory=dict)  # quantile -> trips that took no longer
    n_covered: int | None = None  # trips within the model's 80 % interval; None if it gives none

    def add(
        self, prepared: PreparedRows, predicted: np.ndarray, live: np.ndarray | None = None
    ) -> None:
        """Add a batch of n rows.

        Args:
            prepared: the rows.
            predicted: [n] minutes by the model alone, NaN where a row is not predictable.
            live: [n] the same with the live level; None if there is none.
        """
        self.n_rows += len(predicted)
        self.unreadable = self.unreadable or prepared.unreadable
        self.n_predicted += int(prepared.predictable.sum())
        eligible = prepared.eligible
        self.profile.add(trips := _eligible_trips(prepared))
        pickup_at = trips.column("pickup_at").to_numpy(zero_copy_only=False)
        self.dates.update(np.unique(pickup_at.astype("datetime64[D]")).tolist())
        self.predictions = self.predictions + count_predictions(predicted[eligible])
        is_measured = eligible & np.isfinite(prepared.minutes)
        pickup = prepared.columns["pickup_at"].filter(pa.array(is_measured)).to_numpy()
        day = pickup.astype("datetime64[D]")
        base = (predicted - prepared.minutes)[is_measured]
        _add_errors(self.base, self.base_days, base, day)
        error = base if live is None else (live - prepared.minutes)[is_measured]
        _add_errors(self.total, self.days, error, day)
        final = predicted if live is None else live
        worst = find_worst(_measured_trips(prepared, is_measured), final[is_measured])
        self.worst = join_worst([self.worst, worst])

    def add_quantiles(self, prepared: PreparedRows, quantiles: Mapping[str, np.ndarray]) -> None:
        """Count the trips in a batch of n rows that took no longer than each quantile, [n]."""
        is_measured = prepared.eligible & np.isfinite(prepared.minutes)
        for name, minutes in quantiles.items():
            n_within = int(np.count_nonzero((prepared.minutes <= minutes)[is_measured]))
            self.within[name] = self.within.get(name, 0) + n_within

    def add_covered(self, prepared: PreparedRows, covered: np.ndarray) -> None:
        """Count the trips in a batch of n rows that are within their 80 % intervals.

        Args:
            prepared: the rows.
            covered: bool [n].
        """
        n_covered = int(np.count_nonzero(covered & prepared.eligible))
        self.n_covered = (self.n_covered or 0) + n_covered

    @property
    def coverage(self) -> float | None:
        """Share of the trips within their 80 % intervals; None without intervals or drop-offs."""
        return None if self.n_covered is None or not self.base.n else self.n_covered / self.base.n

    @property
    def errors(self) -> MonthScores | None:
        """Scores of the model alone, as a live level would hide drift; None without drop-offs."""
        if not (scores := self.base.scores()):
            return None
        return MonthScores(self.base.n, scores["rmse"], self.base.rmse_relative_se(), self.coverage)

    @property
    def shares_within(self) -> dict[str, float]:
        """Quantile -> share of the trips that took no longer; empty without drop-offs."""
        return {name: n / self.base.n for name, n in self.within.items() if self.base.n}

    @property
    def estimate_error(self) -> float | None:
        """Estimated RMSE / measured RMSE - 1; None if either is unknown, or the latter 0."""
        rmse = self.base.scores().get("rmse")
        return self.estimated.value / rmse - 1 if self.estimated and rmse else None

    def daily(self) -> list[Mapping[str, str | int | float]]:
        """List the days in order: day, n_trips, rmse, mae, bias; rmse_base of the model alone."""
        return [
            {
                "day": day,
                "n_trips": errors.n,
                **errors.scores(),
                "rmse_base": self.base_days[day].scores()["rmse"],
            }
            for day, errors in sorted(self.days.items())
        ]


def _add_errors(
    total: ErrorSums, days: dict[str, ErrorSums], error: np.ndarray, day: np.ndarray
) -> None:
    """Add the errors [m] of m trips to the month's sums and to those of their days [m]."""
    total.add(error)
    for value in np.unique(day):
        days.setdefault(str(value), ErrorSums()).add(error[day == value])


def _measured_trips(prepared: PreparedRows, is_measured: np.ndarray) -> Trips:
    """Select the m trips on which errors are measured."""
    rows = pa.array(is_measured)
    inputs = {
        role: prepared.columns[role].filter(rows).to_numpy(zero_copy_only=False) for role in INPUTS
    }
    return Trips(**inputs, trip_minutes=prepared.minutes[is_measured])


def _eligible_trips(prepared: PreparedRows) -> pa.RecordBatch:
    """Select the eligible trips, with the columns that a profile needs."""
    rows = pa.array(prepared.eligible)
    minutes = pa.array(prepared.minutes, from_pandas=True)
    columns = prepared.columns | {"trip_minutes": minutes}
    return pa.RecordBatch.from_pydict({name: columns[name].filter(rows) for name in TRIPS.names})
