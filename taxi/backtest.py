"""Results of a backtest: errors by month and by the model's age, and when to train again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from . import TripError
from .bootstrap import CONFIDENCE, Interval, interval_of
from .scores import rmse_of_mean
from .words import format_count

N_RESAMPLES = 2_000
# baselines that are shown beside the chosen model -> their names for people
BESIDE: Mapping[str, str] = {"mean": "naive (mean)", "linear_regression": "the course's recipe"}
OWN = "chosen"  # the model that the recipe produced


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
    model: str  # OWN, or a key of BESIDE
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
        about = {name: getattr(self, name) for name in ("fold", "month", "age", "model", "n_trips")}
        return about | errors | {"run_id": self.run_id}

    @classmethod
    def read(cls, row: Mapping[str, str]) -> "MonthErrors":
        """Read a row of the table."""
        rmse, bias = (
            Interval(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high")))
            for name in ("rmse", "bias")
        )
        counts = int(row["age"]), row["model"], int(row["n_trips"])
        return cls(row["fold"], row["month"], *counts, rmse, bias, row["run_id"])


class Rise(NamedTuple):
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
    own = [one for one in days if one.day.startswith(month)]
    if not own:
        raise TripError(f"No trip of {month} says how long it took: no model can be judged on it.")
    n = np.array([one.n_trips for one in own], float)
    squares = n * np.array([one.rmse for one in own]) ** 2
    sums = n * np.array([one.bias for one in own])
    shares = [1 / len(own)] * len(own)
    drawn = np.random.default_rng(seed).multinomial(len(own), shares, N_RESAMPLES)
    trips, squared, summed = ((drawn * part).sum(axis=1) for part in (n, squares, sums))
    rmse = interval_of(rmse_of_mean(squares.sum() / n.sum()), rmse_of_mean(squared / trips))
    bias = interval_of(sums.sum() / n.sum(), summed / trips)
    return MonthErrors(fold, month, age, model, int(n.sum()), rmse, bias, run_id)


def fresh(rows: Iterable[MonthErrors], model: str = OWN) -> dict[str, MonthErrors]:
    """Select the errors of a model's fresh fits, on the months they were trained for, by month."""
    return {row.month: row for row in rows if row.age == 0 and row.model == model}


def measure_ageing(rows: Sequence[MonthErrors]) -> list[Rise]:
    """Compare models of each age with fresh ones, paired by month, so that hard months cancel."""
    new = fresh(rows)
    rises: dict[int, list[float]] = {}
    for row in rows:
        if row.model == OWN and row.age and row.month in new:
            rises.setdefault(row.age, []).append(row.rmse.value / new[row.month].rmse.value - 1)
    return [Rise(age, len(shares), mean_of(shares)) for age, shares in sorted(rises.items())]


def mean_of(values: Sequence[float]) -> Interval:
    """Compute the mean of n > 0 independent values and Student's interval; unbounded if n is 1."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, -np.inf, np.inf)
    from scipy.special import stdtrit  # takes a second, which a step that only scores can save

    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * spread
    return Interval(mean, mean - reach, mean + reach)


def compare_recipes(
    rows: Iterable[MonthErrors], others: Iterable[MonthErrors]
) -> PairedDifference | None:
    """Compare the fresh models of two recipes on the months on which both were scored.

    Returns:
        None if there is no such month, or if the recipes' trips differ in any.
    """
    own, other = fresh(rows), fresh(others)
    both = sorted(own.keys() & other.keys())
    if not both or any(own[month].n_trips != other[month].n_trips for month in both):
        return None
    return PairedDifference(
        len(both), mean_of([own[month].rmse.value - other[month].rmse.value for month in both])
    )


# --- in words


def answer(rises: Sequence[Rise], rows: Iterable[MonthErrors]) -> str:
    """Say in a sentence how often to retrain or, if no model was followed, the mean RMSE."""
    if not rises:
        errors = [row.rmse.value for row in fresh(rows).values()]
        mean, n = float(np.mean(errors)), format_months(len(errors))
        return f"RMSE is {mean:.3f} min over {n}; no model was followed beyond its own month."
    worse = next((rise for rise in rises if rise.share.low > 0), None)
    age = format_months((worse or rises[-1]).age)
    error = f"after {age} the error is {_beside_fresh((worse or rises[-1]).share)}."
    if worse:
        return f"Retrain every {age}: {error}"
    return f"No age up to {age} is significantly worse than a fresh model: {error}"


def format_months(n: int) -> str:
    """Write a number of months."""
    return format_count(n, "month")


def _beside_fresh(share: Interval) -> str:
    value, low, high = (100 * part for part in share)
    told = f"95 % interval {low:+.1f} to {high:+.1f}" if np.isfinite(low) else "a single month"
    side = f"{abs(value):.1f} % {'below' if value < 0 else 'above'}"
    return f"{'as large as' if side.startswith('0.0') else side} a fresh model's ({told})"


def describe_difference(found: PairedDifference, other: str) -> str:
    """Say in a sentence which of two recipes is better."""
    value, low, high = found.minutes
    over = f"over {format_months(found.n_months)}"
    if not np.isfinite(low):
        return f"RMSE is {value:+.3f} min against {other} {over}, and a single one proves nothing."
    sure = "better" if high < 0 else "worse" if low > 0 else "not significantly better or worse"
    return (
        f"This recipe is {sure} than {other}: RMSE {value:+.3f} min, 95 % interval {low:+.3f} to "
        f"{high:+.3f}, {over}."
    )
