"""The folds of a backtest: which months each learns from, is judged on and is followed for."""

from collections.abc import Sequence
from typing import NamedTuple

from storage import UserError
from storage.data import months

MONTHS_WANTED = "months is empty. Pass -P months=2022-01..2022-12, the months to judge models on."


class Fold(NamedTuple):
    """One model's months, none of which comes before one that it has learned from."""

    month: str  # that it is judged on
    train: list[str]
    valid: str  # that it is chosen by, and then fitted to as well
    later: list[str]  # months that it is followed for, in their order

    @property
    def learned(self) -> str:
        """Name the months that the model has seen, as parameters write them."""
        return f"{self.train[0]}..{self.valid}"


def make_folds(text: str, *, window: int, horizon: int, growing: bool) -> list[Fold]:
    """Roll the origin from month to month.

    Args:
        text: months to judge models on, as they are typed.
        window: months that each is fitted on, which end before its valid month.
        horizon: months that it is followed for, as far as they are among those judged: there a
            fresh model stands beside it.
        growing: whether each window begins where the first one does.
    Raises:
        UserError: the months leave no room for the window or the horizon.
    """
    judged = sorted(months.parse_months(text))
    if not judged:
        raise UserError(MONTHS_WANTED)
    folds, first = [], back(judged[0], window + 1, text, window)
    for month in judged:
        begin = first if growing else back(month, window + 1, text, window)
        *train, valid = months.months_between(begin, month)[:-1]
        end = forward(month, horizon)
        folds.append(Fold(month, train, valid, [one for one in judged if month < one <= end]))
    check_horizon(folds, horizon)
    return folds


def back(month: str, n: int, text: str, window: int) -> str:
    """Return the month so many before this one."""
    place = int(month[:4]) * 12 + int(month[5:]) - 1 - n
    earlier = f"{place // 12:04d}-{place % 12 + 1:02d}"
    if earlier < months.FIRST_MONTH:
        raise UserError(
            f"window={window} begins before {months.FIRST_MONTH} for {month} of months={text}. "
            f"Pass a smaller window, or later months."
        )
    return earlier


def forward(month: str, n: int) -> str:
    """Return the month so many after this one."""
    for _ in range(n):
        month = months.next_month(month)
    return month


def check_horizon(folds: Sequence[Fold], horizon: int) -> None:
    """Refuse a horizon that no month is as far off as.

    Raises:
        UserError: every month is closer to its fold than that.
    """
    oldest = max(age_at(fold, month) for fold in folds for month in [fold.month, *fold.later])
    if oldest < horizon:
        raise UserError(
            f"horizon={horizon} follows a model for {horizon} months after its own, and the last "
            f"of months within them is {oldest} after. Pass horizon={oldest}, or more months."
        )


def age_at(fold: Fold, month: str) -> int:
    """Return how old a fold's model is in a month, in months."""
    return len(months.months_between(fold.month, month)) - 1
