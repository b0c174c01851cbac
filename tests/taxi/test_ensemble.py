import numpy as np

from taxi.boosting import Outcome
from taxi.ensemble import MIN_GAIN, POOL_SIZE, candidate_pool, choose_members
from taxi.search import Failure, Trial

MINUTES = np.array([10.0, 20.0, 30.0, 40.0])


def trial(number: int, rmse: float, objective: str = "count:poisson", **changed: bool) -> Trial:
    outcome = Outcome(rmse, 0, [rmse], 0.0, pruned=False, booster=None)
    return Trial(number, {"objective": objective}, outcome._replace(**changed))


def test_the_pool_holds_the_best_trials_of_each_objective_best_first() -> None:
    good = [trial(n, 4.0 + n / 100) for n in range(POOL_SIZE + 3)]
    worse = [trial(20 + n, 5.0 + n / 100, "reg:squarederror") for n in range(2)]
    lost = [trial(30, 3.0, pruned=True), Trial(31, {}, Failure("no trees"))]
    pool = candidate_pool([*lost, *worse, *good[::-1]])
    assert [one.number for one in pool] == [*range(POOL_SIZE), 20, 21]


def test_members_are_chosen_by_the_error_of_their_average() -> None:
    off = np.array([3.0, -3.0, 3.0, -3.0])
    # the second best errs in the same direction as the best; the worst errs in the other
    predictions = np.array([MINUTES + off, MINUTES + 1.1 * off, MINUTES - 1.2 * off])
    assert choose_members(predictions, MINUTES, max_members=2) == [0, 2]


def test_a_member_that_brings_too_little_is_left_out() -> None:
    off = np.array([3.0, -3.0, 3.0, -3.0])
    little = MIN_GAIN / 3 * np.sign(off)
    predictions = np.array([MINUTES + off, MINUTES + off - little])
    assert choose_members(predictions, MINUTES, max_members=2) == [1]


def test_there_are_never_more_members_than_asked_for_or_than_there_are() -> None:
    rng = np.random.default_rng(1)
    predictions = MINUTES + rng.normal(0, 3, (6, 4))
    assert len(choose_members(predictions, MINUTES, max_members=3)) <= 3
    assert len(choose_members(predictions[:1], MINUTES, max_members=3)) == 1
