"""Which months a fold's model learns from, is judged on and is followed for."""

import pytest

from steps.pipelines.folds import Fold, make_folds
from storage import UserError


def make(text: str, window: int = 2, horizon: int = 0, *, growing: bool = False) -> list[Fold]:
    return make_folds(text, window=window, horizon=horizon, growing=growing)


def test_the_window_ends_before_the_valid_month_and_that_before_the_month_judged() -> None:
    first, second = make("2022-01..2022-02", horizon=1)
    assert first == Fold("2022-01", ["2021-10", "2021-11"], "2021-12", ["2022-02"])
    assert second == Fold("2022-02", ["2021-11", "2021-12"], "2022-01", [])
    assert first.learned_months == "2021-10..2021-12"


@pytest.mark.parametrize("growing", [False, True])
def test_nothing_is_learned_from_the_month_judged_or_a_later_one(growing: bool) -> None:
    for fold in make("2022-03,2021-12,2022-01..2022-02", 3, 2, growing=growing):
        learned_months = [*fold.train, fold.valid]
        assert sorted({*learned_months, fold.month, *fold.later}) == [
            *learned_months,
            fold.month,
            *fold.later,
        ]


def test_a_growing_window_begins_where_the_first_one_does() -> None:
    folds = make("2022-01..2022-03", growing=True)
    assert {fold.train[0] for fold in folds} == {"2021-10"}
    assert [len(fold.train) for fold in folds] == [2, 3, 4]


def test_a_model_is_followed_where_a_fresh_one_stands_beside_it() -> None:
    folds = make("2022-01,2022-03,2022-04", horizon=2)
    assert [fold.later for fold in folds] == [["2022-03"], ["2022-04"], []]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "months is empty. Pass -P months=2022-01..2022-12"),
        ("2022-01", {"horizon": 1}, "the last of months within them is 0 after. Pass horizon=0"),
        ("2022-01..2022-03", {"horizon": 3}, "months within them is 2 after. Pass horizon=2"),
        ("1900-03", {"window": 2}, "window=2 begins before 1900-01 for 1900-03"),
        ("2022-01,2022-01", {}, "given twice"),
        ("2022-02..2022-01", {}, "runs backwards"),
    ],
)
def test_months_that_leave_no_room_for_window_or_horizon_are_refused(
    text: str, options: dict[str, int], said: str
) -> None:
    with pytest.raises(UserError) as refused:
        make(text, **options)
    assert said in str(refused.value)
