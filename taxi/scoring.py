"""Raw rows of a month made ready for a model, and what its answers come to, batch by batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .cleaning import MAX_MINUTES, MIN_MINUTES, MINUTE_US, cast_columns, microseconds, month_bounds
from .drift import count_predictions
from .profile import Profile
from .schema import TRIPS, raw_columns

# a trip still to be made has no drop-off, and its planned distance may not be known
MAY_MISS = frozenset({"dropoff_at", "distance_miles"})
NEEDED = ("pickup_at", "pickup_zone", "dropoff_zone")


class Prepared(NamedTuple):
    """A batch of n raw rows, every one of them."""

    columns: dict[str, pa.Array]  # role -> [n]
    judgeable: np.ndarray  # bool [n]: a model can answer
    eligible: np.ndarray  # bool [n]: such a trip would be trained on, as far as it is known
    minutes: np.ndarray  # [n], NaN where the drop-off is not known


def prepare(batch: pa.RecordBatch, *, taxi: str, month: str) -> Prepared:
    """Read raw rows and tell what can be done with each.

    Raises:
        TripError: a needed column is missing, or a value cannot be read as its type.
    """
    columns = cast_columns(batch, taxi, may_miss=MAY_MISS)
    for column in raw_columns(taxi):
        if column.role not in columns:
            columns[column.role] = pa.nulls(batch.num_rows, column.type)
    judgeable = np.ones(batch.num_rows, bool)
    for role in NEEDED:
        judgeable &= columns[role].is_valid().to_numpy(zero_copy_only=False)
    pickup, dropoff = (columns[role].cast(pa.int64()) for role in ("pickup_at", "dropoff_at"))
    duration = pc.subtract(dropoff, pickup).cast(pa.float64())
    minutes = duration.to_numpy(zero_copy_only=False) / MINUTE_US
    start, end = (microseconds(bound) for bound in month_bounds(month))
    at = pickup.fill_null(start - 1).to_numpy()
    eligible = judgeable & (at >= start) & (at < end)
    with np.errstate(invalid="ignore"):
        eligible &= ~((minutes < MIN_MINUTES) | (minutes > MAX_MINUTES))
    return Prepared(columns, judgeable, eligible, minutes)


def frame(prepared: Prepared, taxi: str) -> pd.DataFrame:
    """Lay the judgeable rows out as raw trips, typed so that a model has nothing to guess."""
    rows = pa.array(prepared.judgeable)
    names = {column.role: column.name for column in raw_columns(taxi)}
    roles = (*NEEDED, "distance_miles")
    columns = prepared.columns
    return pd.DataFrame({names[role]: columns[role].filter(rows).to_numpy(False) for role in roles})


def output(prepared: Prepared, predicted: np.ndarray, *, taxi: str, model: str) -> pa.RecordBatch:
    """Put prediction, error and the model's name beside the rows, none left out.

    Args:
        prepared: n rows. predicted: [n], NaN where a row cannot be judged.
        taxi: green or yellow. model: which answered.
    """
    columns = {c.name: prepared.columns[c.role] for c in raw_columns(taxi)}
    columns["prediction"] = pa.array(predicted, from_pandas=True)
    columns["model"] = pa.repeat(model, len(predicted))
    columns["error"] = pa.array(predicted - prepared.minutes, from_pandas=True)
    columns["eligible"] = pa.array(prepared.eligible & np.isfinite(prepared.minutes))
    return pa.RecordBatch.from_pydict(columns)


@dataclass
class Errors:
    """Sums over the trips that count."""

    n: int = 0
    error: float = 0.0
    size: float = 0.0
    square: float = 0.0

    def add(self, error: np.ndarray) -> None:
        """Add the errors of some trips, minutes."""
        self.n += len(error)
        self.error += float(error.sum())
        self.size += float(np.abs(error).sum())
        self.square += float((error**2).sum())

    def scores(self) -> dict[str, float]:
        """Give rmse, mae and bias in minutes; nothing where no trip counts."""
        if not self.n:
            return {}
        rmse = float(np.sqrt(self.square / self.n))
        return {"rmse": rmse, "mae": self.size / self.n, "bias": self.error / self.n}


@dataclass
class Tally:
    """What a month came to so far, in memory that does not grow."""

    n_rows: int = 0
    n_predicted: int = 0
    profile: Profile = field(default_factory=Profile)
    predictions: np.ndarray = field(default_factory=lambda: count_predictions(np.empty(0)))
    total: Errors = field(default_factory=Errors)
    days: dict[str, Errors] = field(default_factory=dict)

    def add(self, prepared: Prepared, predicted: np.ndarray) -> None:
        """Add a batch and its predictions [n], NaN where a row cannot be judged."""
        self.n_rows += len(predicted)
        self.n_predicted += int(prepared.judgeable.sum())
        eligible = prepared.eligible
        self.profile.add(_trips(prepared))
        self.predictions = self.predictions + count_predictions(predicted[eligible])
        counted = eligible & np.isfinite(prepared.minutes)
        error = (predicted - prepared.minutes)[counted]
        self.total.add(error)
        pickup = prepared.columns["pickup_at"].filter(pa.array(counted)).to_numpy()
        day = pickup.astype("datetime64[D]")
        for value in np.unique(day):
            self.days.setdefault(str(value), Errors()).add(error[day == value])

    def daily(self) -> list[Mapping[str, str | int | float]]:
        """List the days' trips and errors, in order."""
        return [
            {"day": day, "n_trips": found.n, **found.scores()}
            for day, found in sorted(self.days.items())
        ]


def _trips(prepared: Prepared) -> pa.RecordBatch:
    """Pick the eligible trips, with the columns that a profile counts."""
    rows = pa.array(prepared.eligible)
    minutes = pa.array(prepared.minutes, from_pandas=True)
    columns = prepared.columns | {"trip_minutes": minutes}
    return pa.RecordBatch.from_pydict({name: columns[name].filter(rows) for name in TRIPS.names})
