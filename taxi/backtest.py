"""Results of a backtest: errors by month and by the model's age, and when to train again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from . import TripError
from .bootstrap import CONFIDENCE, Interval, percentile_interval
from .scores import rmse_of_mean
from .words import format_count

N_RESAMPLES = 2_000
# baselines that are shown beside the chosen model -> their names for people
COMPARED_BASELINES: Mapping[str, str] = {
    "mean": "naive (mean)",
    "linear_regression": "the course's recipe",
}
CHOSEN = "chosen"  # the model that the recipe produced


class DayErrors(NamedTuple):
    """The errors of a model on the trips of a day, minutes."""

    day: str  # YYYY-MM-DD
    n_trips: int
    rmse: float
    bias: float  # mean of predicted - measured

    @classmethod
    def read(cls, row: Mapping[str, str]) -> "DayErrors":
        """Read a row of score's table of days."""
        return cls(row["day"], int(row["n_trips"]), float(row["rmse"]), float(row["bias"]))


class MonthErrors(NamedTuple):
    """The errors of a model on a month: a row of a backtest's table."""

    fold: str  # month that its model was trained for
    month: str  # month that it was scored on
    age: int  # months from one to the other
    model: str  # CHOSEN, or a key of COMPARED_BASELINES
    n_trips: int
    rmse: Interval  # minutes
    bias: Interval  # minutes, mean of predicted - measured
    run_id: str  # of the run that scored it

    def row(self) -> dict[str, str | int | float]:
        """Convert it to a row of the table."""
        errors: dict[str, str | int | float] = {
            f"{name}{end}": value
            for name, interval in (("rmse", self.rmse), ("bias", self.bias))
            for end, value in zip(("", "_low", "_high"), interval, strict=True)
        }
        columns = {
            name: getattr(self, name) for name in ("fold", "month", "age", "model", "n_trips")
        }
        return columns | errors | {"run_id": self.run_id}

    @classmethod
    def read(cls, row: Mapping[str, str]) -> "MonthErrors":
        """Read a row of the table."""
        rmse, bias = (
            Interval(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high")))
            for name in ("rmse", "bias")
        )
        counts = int(row["age"]), row["model"], int(row["n_trips"])
        return cls(row["fold"], row["month"], *counts, rmse, bias, row["run_id"])


class RmseRise(NamedTuple):
    """How much worse models of some age are than fresh ones on the same months."""

    age: int  # months
    n_months: int  # months on which models of this age and fresh ones were both scored
    share: Interval  # of the fresh model's RMSE; unbounded if there is only one month


class PairedDifference(NamedTuple):
    """One recipe's RMSE minus another's, paired by month."""

    n_months: int
    minutes: Interval


def measure_month(
    days: Sequence[DayErrors],
    *,
    fold: str,
    month: str,
    age: int,
    model: str,
    run_id: str,
    seed: int,
) -> MonthErrors:
    """Sum up the days of a month, with bootstrap intervals from resampling its days.

    Errors of a day's trips are correlated, so days are resampled: intervals from resampled trips
    would be too narrow.

    Raises:
        TripError: none of the days is in the month.
    """
    month_days = [day for day in days if day.day.startswith(month)]
    if not month_days:
        raise TripError(f"No trip of {month} says how long it took: no model can be judged on it.")
    n = np.array([day.n_trips for day in month_days], float)
    squares = n * np.array([day.rmse for day in month_days]) ** 2
    sums = n * np.array([day.bias for day in month_days])
    shares = [1 / len(month_days)] * len(month_days)
    weights = np.random.default_rng(seed).multinomial(len(month_days), shares, N_RESAMPLES)
    trips, squared, summed = ((weights * values).sum(axis=1) for values in (n, squares, sums))
    rmse = percentile_interval(rmse_of_mean(squares.sum() / n.sum()), rmse_of_mean(squared / trips))
    bias = percentile_interval(sums.sum() / n.sum(), summed / trips)
    return MonthErrors(fold, month, age, model, int(n.sum()), rmse, bias, run_id)


def fresh_errors(rows: Iterable[MonthErrors], model: str = CHOSEN) -> dict[str, MonthErrors]:
    """Select the errors of a model's fresh fits, on the months they were trained for, by month."""
    return {row.month: row for row in rows if row.age == 0 and row.model == model}


def measure_ageing(rows: Sequence[MonthErrors]) -> list[RmseRise]:
    """Compare models of each age with fresh ones, paired by month, so that hard months cancel."""
    fresh_by_month = fresh_errors(rows)
    rises: dict[int, list[float]] = {}
    for row in rows:
        fresh_rmse = fresh_by_month[row.month].rmse.value if row.month in fresh_by_month else 0.0
        if row.model == CHOSEN and row.age and fresh_rmse:
            rises.setdefault(row.age, []).append(row.rmse.value / fresh_rmse - 1)
    return [
        RmseRise(age, len(shares), mean_interval(shares)) for age, shares in sorted(rises.items())
    ]


def mean_interval(values: Sequence[float]) -> Interval:
    """Compute the mean of n > 0 independent values and Student's interval; unbounded if n is 1."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, -np.inf, np.inf)
    from scipy.special import stdtrit  # takes a second, which a step that only scores can save

    standard_error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    margin = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * standard_error
    return Interval(mean, mean - margin, mean + margin)


def compare_recipes(
    rows: Iterable[MonthErrors], others: Iterable[MonthErrors]
) -> PairedDifference | None:
    """Compare the fresh models of two recipes on the months on which both were scored.

    Returns:
        None if there is no such month, or if the recipes' trips differ in any.
    """
    own, other = fresh_errors(rows), fresh_errors(others)
    both = sorted(own.keys() & other.keys())
    if not both or any(own[month].n_trips != other[month].n_trips for month in both):
        return None
    return PairedDifference(
        len(both),
        mean_interval([own[month].rmse.value - other[month].rmse.value for month in both]),
    )


# --- in words


def advise_retraining(rises: Sequence[RmseRise], rows: Iterable[MonthErrors]) -> str:
    """Say in a sentence how often to retrain or, if no model was followed, the mean RMSE."""
    if not rises:
        errors = [row.rmse.value for row in fresh_errors(rows).values()]
        mean, n = float(np.mean(errors)), format_n_months(len(errors))
        return f"RMSE is {mean:.3f} min over {n}; no model was followed beyond its own month."
    worse = next((rise for rise in rises if rise.share.low > 0), None)
    age = format_n_months((worse or rises[-1]).age)
    error = f"after {age} the error is {_describe_rise((worse or rises[-1]).share)}."
    if worse:
        return f"Retrain every {age}: {error}"
    return f"No age up to {age} is significantly worse than a fresh model: {error}"


def format_n_months(n: int) -> str:
    """Write a number of months."""
    return format_count(n, "month")


def _describe_rise(share: Interval) -> str:
    value, low, high = (100 * part for part in share)
    interval = f"95 % interval {low:+.1f} to {high:+.1f}" if np.isfinite(low) else "a single month"
    size = f"{abs(value):.1f} % {'below' if value < 0 else 'above'}"
    return f"{'as large as' if size.startswith('0.0') else size} a fresh model's ({interval})"


def describe_difference(difference: PairedDifference, other: str) -> str:
    """Say in a sentence which of two recipes is better."""
    value, low, high = difference.minutes
    over = f"over {format_n_months(difference.n_months)}"
    if not np.isfinite(low):
        return f"RMSE is {value:+.3f} min against {other} {over}, and a single one proves nothing."
    verdict = "better" if high < 0 else "worse" if low > 0 else "not significantly better or worse"
    return (
        f"This recipe is {verdict} than {other}: RMSE {value:+.3f} min, 95 % interval "
        f"{low:+.3f} to {high:+.3f}, {over}."
    )
