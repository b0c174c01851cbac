import pytest

from taxi import search, spaces
from taxi.spaces import LAG, lag_of


@pytest.mark.parametrize("parallelism", [0, 1, LAG])
def test_up_to_lag_trials_at_once_leave_the_search_as_it_is(parallelism: int) -> None:
    assert lag_of(parallelism) == LAG


def test_more_trials_at_once_make_a_suggestion_look_back_as_far() -> None:
    assert lag_of(LAG + 1) == LAG + 1


def test_the_search_looks_back_by_that_lag_unless_told_otherwise() -> None:
    assert search.LAG is spaces.LAG
