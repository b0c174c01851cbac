"""The folds of a backtest: the months that each learns from, is judged on and is followed for."""

from collections.abc import Sequence
from typing import NamedTuple

from storage import UserError
from storage.data import months
from taxi.words import format_count

MONTHS_REQUIRED = "months is empty. Pass -P months=2022-01..2022-12, the months to judge models on."


class Fold(NamedTuple):
    """The months of one model; it is judged only on months after those that it learned from."""

    month: str  # the month that it is judged on
    train: list[str]
    valid: str  # the month that it is chosen on, and then refitted to as well
    later: list[str]  # months for which it is followed, in order

    @property
    def learned_months(self) -> str:
        """The months that the model has seen, as a range."""
        return f"{self.train[0]}..{self.valid}"


def make_folds(text: str, *, window: int, horizon: int, growing: bool) -> list[Fold]:
    """Make a fold for each month, with a rolling origin.

    Args:
        text: months to judge models on, as typed.
        window: number of train months of each fold, which end before its validation month.
        horizon: number of months for which a model is followed; only judged months count, because
            there a fresh model stands beside it.
        growing: whether every window begins where the first one does.
    Raises:
        UserError: the months leave no room for the window or the horizon.
    """
    judged = sorted(months.parse_months(text))
    if not judged:
        raise UserError(MONTHS_REQUIRED)
    folds, first = [], month_before(judged[0], window + 1, text, window)
    for month in judged:
        begin = first if growing else month_before(month, window + 1, text, window)
        *train, valid = months.months_between(begin, month)[:-1]
        end = month_after(month, horizon)
        folds.append(Fold(month, train, valid, [one for one in judged if month < one <= end]))
    check_horizon(folds, horizon)
    return folds


def month_before(month: str, n: int, text: str, window: int) -> str:
    """Return the month that is n months before this one."""
    place = int(month[:4]) * 12 + int(month[5:]) - 1 - n
    earlier = f"{place // 12:04d}-{place % 12 + 1:02d}"
    if earlier < months.FIRST_MONTH:
        raise UserError(
            f"window={window} begins before {months.FIRST_MONTH} for {month} of months={text}. "
            f"Pass a smaller window, or later months."
        )
    return earlier


def month_after(month: str, n: int) -> str:
    """Return the month that is n months after this one."""
    for _ in range(n):
        month = months.next_month(month)
    return month


def check_horizon(folds: Sequence[Fold], horizon: int) -> None:
    """Check that some fold has a month as far off as the horizon.

    Raises:
        UserError: every month is closer to its fold than that.
    """
    oldest = max(age_at(fold, month) for fold in folds for month in [fold.month, *fold.later])
    if oldest < horizon:
        raise UserError(
            f"horizon={horizon} follows a model for {format_count(horizon, 'month')} after its "
            f"own, and the last of months within them is {oldest} after. Pass horizon={oldest}, or "
            f"more months."
        )


def age_at(fold: Fold, month: str) -> int:
    """Return the age of a fold's model in a month, in months."""
    return len(months.months_between(fold.month, month)) - 1
