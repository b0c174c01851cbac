"""Raw rows of a month prepared for a model, and the errors of its predictions, by batch."""

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
    inputs_of,
    is_mileage,
    raw_columns,
    taxi_named,
)
from .scores import rmse_of_mean
from .worst import WorstTrip, find_worst, join_worst

# roles that a file to score may be without: a trip still to be made has no drop-off
MAY_MISS = frozenset({"dropoff_at", *INPUTS}) - {role for role, must in INPUTS.items() if must}


class Prepared(NamedTuple):
    """A batch of n raw rows, every one of them."""

    columns: dict[str, pa.Array]  # role -> [n]
    judgeable: np.ndarray  # bool [n]: a model can answer
    eligible: np.ndarray  # bool [n]: such a trip would be trained on, as far as it is known
    minutes: np.ndarray  # [n], NaN where the drop-off is not known
    foreseen: np.ndarray  # bool [n]: as eligible, as far as it is known at pickup
    unreadable: str = ""  # the first value that nobody can read, in words


def prepare_batch(batch: pa.RecordBatch, *, taxi: str, month: str) -> Prepared:
    """Read n raw rows, and decide which can be predicted and which count in the errors.

    Args:
        batch: n rows with the TLC's columns for this taxi; others are ignored.
        taxi: key of schema.TAXIS.
        month: YYYY-MM, the month whose file this is.

    Raises:
        TripError: a needed column is missing or of another type, or a value may mean two things.
    """
    rows = read_columns(batch, taxi, may_miss=MAY_MISS)
    columns = rows.columns
    wanted = [(column.role, column.type) for column in raw_columns(taxi)]
    for role, kind in (*wanted, ("distance_miles", pa.float64())):
        columns.setdefault(role, pa.nulls(batch.num_rows, kind))
    judgeable = np.ones(batch.num_rows, bool)
    for role in (role for role, must in inputs_of(taxi).items() if must):
        judgeable &= columns[role].is_valid().to_numpy(zero_copy_only=False)
    # an app ride may state its seconds and have no drop-off: a row that is no trip
    durations_us = pc.if_else(columns["dropoff_at"].is_valid(), durations(columns), None)
    minutes = to_minutes(durations_us).to_numpy(zero_copy_only=False)
    start, end = (microseconds(bound) for bound in month_bounds(month))
    at = columns["pickup_at"].cast(pa.int64()).fill_null(start - 1).to_numpy()
    foreseen = judgeable & (at >= start) & (at < end) & rows.readable(INPUTS)
    for role in () if taxi_named(taxi).zones_may_miss else ZONES:
        foreseen &= columns[role].fill_null(0).to_numpy() >= 1
    eligible = foreseen & rows.readable()
    for test in kept_by_rules(columns):
        eligible &= test.fill_null(True).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        eligible &= ~((minutes < MIN_MINUTES) | (minutes > MAX_MINUTES))
    return Prepared(columns, judgeable, eligible, minutes, foreseen, rows.unreadable)


def request_frame(prepared: Prepared, taxi: str) -> pd.DataFrame:
    """Convert the judgeable rows, m <= n, to the frame that a model is sent, one type a column."""
    rows = pa.array(prepared.judgeable)
    roles = input_names(taxi).items()
    columns = prepared.columns
    return pd.DataFrame({name: columns[role].filter(rows).to_numpy(False) for role, name in roles})


def prediction_batch(
    prepared: Prepared,
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
        predicted: [n] minutes, NaN where a row cannot be judged.
        taxi: key of schema.TAXIS.
        model: URI of the model that predicted.
        base: [n] minutes of the model alone, where a live level is in `predicted`.
        quantiles: column -> [n] minutes, NaN where `predicted` is.
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


def is_distance_known(prepared: Prepared) -> np.ndarray:
    """Which of n rows have a distance that can be, bool [n]."""
    return is_mileage(prepared.columns["distance_miles"].to_numpy(zero_copy_only=False))


@dataclass
class Errors:
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
        """Return rmse, mae and bias in minutes; nothing where there is no trip."""
        if not self.n:
            return {}
        rmse = float(rmse_of_mean(self.square / self.n))
        return {"rmse": rmse, "mae": self.size / self.n, "bias": self.error / self.n}

    def rmse_chance(self) -> float:
        """Return the standard deviation of rmse by chance, as a share of it; 0 without an error."""
        if not self.square:
            return 0.0
        spread = self.n * self.fourth / self.square**2 - 1  # of the squared errors
        return 0.5 * sqrt(max(spread, 0.0) / self.n)


@dataclass
class Tally:
    """Counts and errors of the rows of a month so far, in memory that does not grow."""

    n_rows: int = 0
    n_predicted: int = 0
    n_live: int = 0  # rows whose prediction has a live level
    unreadable: str = ""  # the first value that nobody can read, in words
    profile: Profile = field(default_factory=Profile)
    dates: set[date] = field(default_factory=set)  # on which those trips began
    # of the model alone, which is what drifts
    predictions: np.ndarray = field(default_factory=lambda: count_predictions(np.empty(0)))
    total: Errors = field(default_factory=Errors)
    base: Errors = field(default_factory=Errors)  # of the model alone
    days: dict[str, Errors] = field(default_factory=dict)
    base_days: dict[str, Errors] = field(default_factory=dict)
    estimated: EstimatedRmse | None = None  # RMSE of the model alone, of no drop-off
    worst: list[WorstTrip] = field(default_factory=list)
    within: dict[str, int] = field(default_factory=dict)  # quantile -> trips that took no longer
    n_covered: int | None = None  # trips within the model's 80 % interval; None where it gives none

    def add(
        self, prepared: Prepared, predicted: np.ndarray, live: np.ndarray | None = None
    ) -> None:
        """Add a batch of n rows.

        Args:
            prepared: the rows.
            predicted: [n] minutes of the model alone, NaN where a row cannot be judged.
            live: [n] the same with a live level; None where there is none.
        """
        self.n_rows += len(predicted)
        self.unreadable = self.unreadable or prepared.unreadable
        self.n_predicted += int(prepared.judgeable.sum())
        eligible = prepared.eligible
        self.profile.add(trips := _trips(prepared))
        began = trips.column("pickup_at").to_numpy(zero_copy_only=False)
        self.dates.update(np.unique(began.astype("datetime64[D]")).tolist())
        self.predictions = self.predictions + count_predictions(predicted[eligible])
        counted = eligible & np.isfinite(prepared.minutes)
        pickup = prepared.columns["pickup_at"].filter(pa.array(counted)).to_numpy()
        day = pickup.astype("datetime64[D]")
        base = (predicted - prepared.minutes)[counted]
        _add_errors(self.base, self.base_days, base, day)
        error = base if live is None else (live - prepared.minutes)[counted]
        _add_errors(self.total, self.days, error, day)
        told = predicted if live is None else live
        found = find_worst(_counted_trips(prepared, counted), told[counted])
        self.worst = join_worst([self.worst, found])

    def add_quantiles(self, prepared: Prepared, quantiles: Mapping[str, np.ndarray]) -> None:
        """Count the trips of a batch of n rows that took no longer than each quantile, [n]."""
        counted = prepared.eligible & np.isfinite(prepared.minutes)
        for name, minutes in quantiles.items():
            n_within = int(np.count_nonzero((prepared.minutes <= minutes)[counted]))
            self.within[name] = self.within.get(name, 0) + n_within

    def add_covered(self, prepared: Prepared, covered: np.ndarray) -> None:
        """Count the trips of a batch of n rows that are within their 80 % intervals, bool [n]."""
        n_covered = int(np.count_nonzero(covered & prepared.eligible))
        self.n_covered = (self.n_covered or 0) + n_covered

    @property
    def coverage(self) -> float | None:
        """Share of the trips within their 80 % intervals; None where either is not known."""
        return None if self.n_covered is None or not self.base.n else self.n_covered / self.base.n

    @property
    def errors(self) -> MonthScores | None:
        """How far the model alone was off, which a live level would hide; None without drop-off."""
        if not (scores := self.base.scores()):
            return None
        return MonthScores(self.base.n, scores["rmse"], self.base.rmse_chance(), self.coverage)

    @property
    def shares_within(self) -> dict[str, float]:
        """Share of the trips that took no longer than each quantile; none without a drop-off."""
        return {name: n / self.base.n for name, n in self.within.items() if self.base.n}

    @property
    def estimate_error(self) -> float | None:
        """Share by which the RMSE was estimated too high; None where either is not known."""
        scores = self.base.scores()
        return self.estimated.value / scores["rmse"] - 1 if self.estimated and scores else None

    def daily(self) -> list[Mapping[str, str | int | float]]:
        """List the days in order: day, n_trips, rmse, mae, bias and the model's own rmse_base."""
        return [
            {
                "day": day,
                "n_trips": errors.n,
                **errors.scores(),
                "rmse_base": self.base_days[day].scores()["rmse"],
            }
            for day, errors in sorted(self.days.items())
        ]


def _add_errors(total: Errors, days: dict[str, Errors], error: np.ndarray, day: np.ndarray) -> None:
    """Add errors [m] of trips of these days [m] to the month's and the days' sums."""
    total.add(error)
    for value in np.unique(day):
        days.setdefault(str(value), Errors()).add(error[day == value])


def _counted_trips(prepared: Prepared, counted: np.ndarray) -> Trips:
    """Select the trips that errors are counted on, m of them."""
    rows = pa.array(counted)
    inputs = {
        role: prepared.columns[role].filter(rows).to_numpy(zero_copy_only=False) for role in INPUTS
    }
    return Trips(**inputs, trip_minutes=prepared.minutes[counted])


def _trips(prepared: Prepared) -> pa.RecordBatch:
    """Select the eligible trips, with the columns that a profile counts."""
    rows = pa.array(prepared.eligible)
    minutes = pa.array(prepared.minutes, from_pandas=True)
    columns = prepared.columns | {"trip_minutes": minutes}
    return pa.RecordBatch.from_pydict({name: columns[name].filter(rows) for name in TRIPS.names})
