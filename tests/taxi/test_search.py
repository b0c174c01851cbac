from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from threading import Event, Lock
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from taxi import TripError, search
from taxi.boosting import (
    Outcome,
    PruningThreshold,
)
from taxi.search import LAG, Failure, FinishedTrial, Trial
from taxi.spaces import SEARCH_SPACES, Pruning
from tests.taxi.searches import SEARCHED, Objective, outcome, points, run, valley


class OutOfOrder:
    """The objective `valley`, where the last of each `block` trials asked for finishes first."""

    def __init__(self, block: int, n_trials: int, n_first: int) -> None:
        self.block = block
        self.n_first = n_first  # the space's own first points: later trials wait for all of them
        self.finished = [Event() for _ in range(n_trials)]
        self.order: list[int] = []
        self.n_entered = 0
        self.lock = Lock()

    def __call__(self, point: Mapping[str, Any]) -> Outcome:
        with self.lock:  # tasks leave the executor's queue in the order in which they came
            number = self.n_entered
            self.n_entered += 1
        later = number + 1
        place = later - self.n_first if later >= self.n_first else later
        if later < len(self.finished) and place % self.block:
            assert self.finished[later].wait(timeout=60)
        with self.lock:
            self.order.append(number)
            self.finished[number].set()
        return valley(point)


# --- the loop


@pytest.mark.parametrize("name", SEARCHED)
def test_trials_in_parallel_make_the_same_search_whatever_finishes_first(name: str) -> None:
    space = SEARCH_SPACES[name]
    alone = run(space)
    assert [trial.number for trial in alone] == list(range(36))
    for n_parallel in (2, 8):
        objective = OutOfOrder(n_parallel, n_trials=36, n_first=len(space.first))
        together = run(space, objective, n_parallel=n_parallel)
        assert objective.order != sorted(objective.order)
        assert together == alone


def marked(trial_number: int) -> Objective:
    """Return the objective `valley`, but with one trial far better."""
    numbers = iter(range(1000))
    return lambda point: outcome(valley(point).rmse - 1e3 * (next(numbers) == trial_number))


@pytest.mark.parametrize("changed", [0, 20])
def test_an_outcome_reaches_the_suggestions_from_lag_trials_later_on(changed: int) -> None:
    before = points(run(SEARCH_SPACES["seed"]))
    after = points(run(SEARCH_SPACES["seed"], marked(changed)))
    # hyperopt draws at random until it knows 20 outcomes: at trial 27 it knows those of 0 to 19
    first_changed = max(changed, 19) + LAG
    assert after[:first_changed] == before[:first_changed]
    assert after[first_changed:] != before[first_changed:]


def test_the_search_learns() -> None:
    def objective(point: Mapping[str, Any]) -> Outcome:
        return outcome((np.log(point["learning_rate"]) + 1.5) ** 2)

    # five searches, because one may be unlucky; at random the logarithm is uniform from -3 to 0
    searches = [run(SEARCH_SPACES["seed"], objective, max_evals=60, seed=seed) for seed in range(5)]
    late = [trial.outcome.rmse for trials in searches for trial in trials[-20:]]
    assert np.mean(late) < 0.75 * 1.5**2 / 3


def test_the_same_seed_makes_the_same_search_and_another_one_another() -> None:
    space = SEARCH_SPACES["seed"]
    assert run(space, max_evals=10) == run(space, max_evals=10)
    first, other = (points(run(space, max_evals=10, seed=seed)) for seed in (42, 43))
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", SEARCHED)
def test_a_longer_search_begins_with_the_shorter_one(name: str) -> None:
    assert run(SEARCH_SPACES[name], max_evals=30)[:5] == run(SEARCH_SPACES[name], max_evals=5)


@pytest.mark.parametrize("n_parallel", [1, 8])
def test_points_known_to_be_good_are_tried_first(n_parallel: int) -> None:
    trials = run(SEARCH_SPACES["lossguide"], max_evals=9, n_parallel=n_parallel)
    space = SEARCH_SPACES["lossguide"]
    for number, point in enumerate(space.first):
        assert trials[number].point == space.parameters(number, point)
    assert trials[1].point != trials[0].point


@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_of_one_trial_makes_one(name: str) -> None:
    assert [trial.number for trial in run(SEARCH_SPACES[name], max_evals=1)] == [0]


def test_a_space_without_dimensions_makes_one_trial_whatever_is_asked_for() -> None:
    wanted = [{"objective": "reg:squarederror"}]
    assert points(run(SEARCH_SPACES["course_best"], max_evals=50, n_parallel=4)) == wanted


def test_every_trial_is_yielded_as_it_starts_and_as_it_ends() -> None:
    yielded = list(
        search.search(SEARCH_SPACES["seed"], done(valley), max_evals=7, seed=1, n_parallel=2)
    )
    started = [trial.number for trial in yielded if trial.result is None]
    assert started == list(range(7))
    for number in started:
        first, second = (trial for trial in yielded if trial.number == number)
        assert first.result is None
        assert second == first._replace(result=valley(first.point))


def done(objective: Objective) -> Callable[..., "Future[Outcome]"]:
    """Make the `submit` of an executor that evaluates a point immediately."""

    def submit(point: dict[str, Any], threshold: PruningThreshold | None) -> "Future[Outcome]":
        future: Future[Outcome] = Future()
        try:
            future.set_result(objective(point))
        except ArithmeticError as error:
            future.set_exception(error)
        return future

    return submit


def test_no_more_trials_run_at_once_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    n_running = []

    def wait(running: dict[Future[Outcome], Trial], return_when: str) -> SimpleNamespace:
        n_running.append(len(running))
        first = list(running)[:1]
        for future in first:
            future.set_result(valley(running[future].point))
        return SimpleNamespace(done=set(first))

    monkeypatch.setattr(search, "wait", wait)
    space = SEARCH_SPACES["seed"]
    asked = {"max_evals": 20, "seed": 1}
    list(search.search(space, lambda *_: Future(), **asked, n_parallel=3))
    assert n_running == [3] * 18 + [2, 1, 0]
    n_running.clear()
    # nor more trials than suggestions can be made for
    list(search.search(space, lambda *_: Future(), **asked, n_parallel=30, lag=5))
    assert n_running == [5] * 16 + [4, 3, 2, 1, 0]


def test_a_trial_that_waits_starts_when_another_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = iter([1, 0, 2, 3])  # trial 1 overtakes trial 0

    def wait(submitted: dict[Future[Outcome], Trial], return_when: str) -> SimpleNamespace:
        number = next(order, None)
        done = {future for future, trial in submitted.items() if trial.number == number}
        for future in done:
            future.set_result(outcome(5.0))
        return SimpleNamespace(done=done)

    monkeypatch.setattr(search, "wait", wait)
    trials = search.search(
        SEARCH_SPACES["seed"], lambda *_: Future(), max_evals=4, seed=1, n_parallel=1, n_waiting=1
    )
    story = [f"{trial.number} {'ends' if trial.result else 'starts'}" for trial in trials]
    assert story[:4] == ["0 starts", "1 starts", "1 ends", "2 starts"]
    assert story[4:] == ["0 ends", "3 starts", "2 ends", "3 ends"]


# --- failures


def failing(*numbers: int) -> Objective:
    """Return `valley`, but with errors in the trials of these numbers; for one at a time."""
    asked = iter(range(1000))

    def objective(point: Mapping[str, Any]) -> Outcome:
        number = next(asked)
        if number in numbers:
            raise ArithmeticError(f"no trees in {number}")
        return valley(point)

    return objective


def test_a_trial_that_fails_is_yielded_with_its_reason_and_the_search_goes_on() -> None:
    trials = run(SEARCH_SPACES["seed"], failing(2, 30))
    assert [t.number for t in trials if isinstance(t.result, Failure)] == [2, 30]
    assert trials[2].result == Failure("ArithmeticError: no trees in 2")
    assert trials[2].outcome is None
    assert len(trials) == 36
    assert search.best_trial(trials).outcome == min(t.outcome for t in trials if t.outcome)


def test_a_score_that_is_no_number_is_a_failure() -> None:
    trials = run(SEARCH_SPACES["seed"], lambda point: outcome(float("nan")), max_evals=2)
    assert [trial.result for trial in trials] == [Failure("valid RMSE is nan")] * 2
    with pytest.raises(TripError, match="None of 2 trials came to anything: valid RMSE is nan"):
        search.best_trial(trials)


@pytest.mark.parametrize(("max_evals", "n_bearable"), [(10, 3), (50, 10)])
def test_a_search_fails_when_too_many_of_its_trials_do(max_evals: int, n_bearable: int) -> None:
    space = SEARCH_SPACES["seed"]
    trials = run(space, failing(*range(n_bearable)), max_evals=max_evals)
    assert len(trials) == max_evals
    message = f"{n_bearable + 1} trials failed, more than the {n_bearable} .*in {n_bearable}"
    with pytest.raises(TripError, match=message):
        run(space, failing(*range(n_bearable + 1)), max_evals=max_evals)


def test_an_executor_that_gives_its_tasks_up_ends_the_search() -> None:
    def submit(point: dict[str, Any], threshold: PruningThreshold | None) -> "Future[Outcome]":
        future: Future[Outcome] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future

    with pytest.raises(CancelledError):
        list(search.search(SEARCH_SPACES["seed"], submit, max_evals=3, seed=1, n_parallel=1))


# --- resuming


def as_finished(trials: list[Trial]) -> dict[int, FinishedTrial]:
    """Return these trials as an earlier process would have recorded them."""
    return {
        t.number: FinishedTrial({name: str(value) for name, value in t.point.items()}, t.outcome)
        for t in trials
        if t.outcome
    }


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("kept", [{0}, {0, 1, 2, 5}, set(range(0, 36, 2)), set(range(35))], ids=len)
def test_a_search_that_goes_on_equals_one_that_was_never_stopped(name: str, kept: set[int]) -> None:
    whole = run(SEARCH_SPACES[name])
    tried: list[Mapping[str, Any]] = []

    def objective(point: Mapping[str, Any]) -> Outcome:
        tried.append(point)
        return valley(point)

    earlier = as_finished([trial for trial in whole if trial.number in kept])
    again = run(SEARCH_SPACES[name], objective, finished=earlier)
    assert [trial._replace(is_reused=False) for trial in again] == whole
    assert [trial.number for trial in again if trial.is_reused] == sorted(kept)
    assert tried == [trial.point for trial in whole if trial.number not in kept]


def test_a_finished_trial_of_another_point_does_not_count() -> None:
    space = SEARCH_SPACES["seed"]
    (known,) = as_finished(run(space, max_evals=1)).values()
    wrong = known._replace(params=dict(known.params) | {"max_depth": "5000"})
    (trial,) = run(space, max_evals=1, finished={0: wrong})
    assert not trial.is_reused
    assert trial.point["max_depth"] != 5000


def test_a_search_whose_time_is_over_asks_for_no_more_and_keeps_what_is_finished() -> None:
    whole = run(SEARCH_SPACES["seed"], max_evals=12)
    left = iter([False, False, True])
    earlier = as_finished(whole[:4])
    trials = run(
        SEARCH_SPACES["seed"], max_evals=12, finished=earlier, should_stop=lambda: next(left)
    )
    assert [trial.point for trial in trials] == points(whole[:6])


# --- pruning


def test_the_pruning_threshold_is_the_best_of_the_trials_that_one_may_know() -> None:
    space = replace(SEARCH_SPACES["lossguide"], first=())
    history = search.TrialHistory(space, LAG)
    for number, rmse in enumerate([6.0, 5.0, 7.0, 4.0]):
        history.add(Trial(number, {}, outcome(rmse)))
    assert [history.pruning_threshold(number) for number in range(LAG)] == [None] * LAG
    # each from the trials with its own objective, which every other trial has
    thresholds = [history.pruning_threshold(number) for number in range(LAG + 1, LAG + 4)]
    assert [threshold.rmse for threshold in thresholds] == [5.0, 6.0, 4.0]
    assert {threshold.rule for threshold in thresholds} == {space.pruning}


def test_what_is_suggested_waits_for_all_points_known_to_be_good_and_is_pruned_by_them() -> None:
    history = search.TrialHistory(SEARCH_SPACES["lossguide"], LAG)
    n_first = len(SEARCH_SPACES["lossguide"].first)
    assert 0 < n_first < LAG
    for number in range(n_first):
        assert history.is_ready(number)
        assert not history.is_ready(n_first)
        history.add(Trial(number, {}, outcome(6.0 - number / 10)))
    assert all(history.is_ready(number) for number in range(n_first + LAG))
    assert not history.is_ready(n_first + LAG)
    assert history.outcomes_for(n_first - 1) == {}
    assert list(history.outcomes_for(n_first)) == list(range(n_first))
    best = {n_first % 2: 6.0 - (n_first - 2) / 10, (n_first + 1) % 2: 6.0 - (n_first - 1) / 10}
    for number in (n_first, n_first + 1):
        threshold = history.pruning_threshold(number)
        assert threshold is not None
        assert threshold.rmse == best[number % 2]


def test_every_trial_is_given_its_pruning_threshold() -> None:
    asked: list[PruningThreshold | None] = []

    def submit(point: dict[str, Any], threshold: PruningThreshold | None) -> "Future[Outcome]":
        asked.append(threshold)
        return done(valley)(point, threshold)

    space = SEARCH_SPACES["lossguide"]
    list(search.search(space, submit, max_evals=LAG + 2, seed=1, n_parallel=1))
    n_first = len(space.first)
    pruned = [False] * (LAG + 2 - n_first)
    assert [threshold is None for threshold in asked] == [True] * n_first + pruned


def test_a_space_without_pruning_has_no_threshold() -> None:
    history = search.TrialHistory(SEARCH_SPACES["seed"], LAG)
    for number in range(30):
        history.add(Trial(number, {}, outcome(5.0)))
    assert history.pruning_threshold(30) is None


def test_the_best_trial_is_the_earlier_of_equal_ones_and_none_that_failed() -> None:
    trials = [Trial(number, {}, outcome(value)) for number, value in enumerate([5.02, 5.0, 5.0])]
    trials.append(Trial(3, {}, Failure("no trees")))
    assert search.best_trial(trials).number == 1


def test_an_objective_that_is_worse_at_every_point_changes_no_suggestion() -> None:
    space = SEARCH_SPACES["lossguide"]

    def suggested(handicap: float) -> dict[str, Any]:
        sampler = search.Sampler(space, seed=1)
        known: dict[int, Outcome] = {}
        for number in range(40):
            point = sampler.ask(number, {n: o for n, o in known.items() if number > 30 and n < 30})
            plain = valley(space.point(point))
            known[number] = outcome(plain.rmse + handicap * (number % 2))
        return sampler.ask(40, known)

    # a power of two can be subtracted again without rounding
    assert suggested(0.0) == suggested(2.0**-4)
    assert suggested(0.0)["objective"] == space.objective(40).name


def test_a_pruned_trial_counts_by_its_extrapolated_rmse() -> None:
    space = replace(SEARCH_SPACES["lossguide"], pruning=Pruning(n_doublings=1))
    curve = [9.0, 8.0, 7.0, 4.0, 3.5, 3.0, 2.5, 2.0]  # after gains of 4 and 2 the next is 1
    falls = Outcome(2.0, 7, curve, 0.0, pruned=True, booster=None)

    def suggested(outcome: Outcome) -> dict[str, Any]:
        sampler = search.Sampler(space, seed=1)
        known: dict[int, Outcome] = {}
        for number in range(40):
            point = sampler.ask(number, known)
            known[number] = outcome if number == 25 else valley(point)
        return sampler.ask(40, known)

    as_finished = falls._replace(pruned=False)
    assert suggested(falls) == suggested(as_finished._replace(rmse=1.0))
    assert suggested(falls) != suggested(as_finished._replace(rmse=1e9))


def test_a_pruned_trial_is_never_the_best() -> None:
    trials = [Trial(0, {}, outcome(5.0)._replace(pruned=True)), Trial(1, {}, outcome(6.0))]
    assert search.best_trial(trials).number == 1
