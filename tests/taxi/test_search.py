from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from threadpoolctl import threadpool_limits

from taxi import TripError, features, search
from taxi.search import LAG, SEARCH_SPACES, Matrices, Outcome, SearchSpace, Trial
from tests.conftest import simulated_trips

Objective = Callable[[Mapping[str, Any]], Outcome]


def outcome(rmse: float) -> Outcome:
    return Outcome(rmse=rmse, best_round=0, curve=[rmse], seconds=0.0, booster=None)


def valley(point: Mapping[str, Any]) -> Outcome:
    """A landscape as cheap as it gets, with one lowest place."""
    return outcome(sum((np.log(value) - i) ** 2 for i, value in enumerate(point.values())))


class OutOfOrder:
    """The valley, where of each `block` trials the last one asked for finishes first."""

    def __init__(self, block: int, n_trials: int) -> None:
        self.block = block
        self.finished = [Event() for _ in range(n_trials)]
        self.order: list[int] = []
        self.n_entered = 0
        self.lock = Lock()

    def __call__(self, point: Mapping[str, Any]) -> Outcome:
        with self.lock:  # tasks leave the executor's queue in the order asked for
            number = self.n_entered
            self.n_entered += 1
        later = number + 1
        if later < len(self.finished) and later % self.block:
            assert self.finished[later].wait(timeout=60)
        with self.lock:
            self.order.append(number)
            self.finished[number].set()
        return valley(point)


def run(
    space: SearchSpace,
    objective: Objective = valley,
    *,
    max_evals: int = 36,
    seed: int = 42,
    n_parallel: int = 1,
) -> list[Trial]:
    """Search; every trial with its outcome, by number."""
    with ThreadPoolExecutor(n_parallel) as executor:
        found = search.search(
            space,
            objective,
            max_evals=max_evals,
            seed=seed,
            executor=executor,
            n_parallel=n_parallel,
        )
        return sorted((t for t in found if t.outcome), key=lambda trial: trial.number)


def points(trials: list[Trial]) -> list[dict[str, Any]]:
    return [trial.point for trial in trials]


SEARCHED = [name for name, space in SEARCH_SPACES.items() if space.space]


# --- the loop


@pytest.mark.parametrize("name", SEARCHED)
def test_trials_in_parallel_make_the_same_search_whatever_finishes_first(name: str) -> None:
    alone = run(SEARCH_SPACES[name])
    assert [trial.number for trial in alone] == list(range(36))
    for n_parallel in (2, 8):
        objective = OutOfOrder(block=n_parallel, n_trials=36)
        together = run(SEARCH_SPACES[name], objective, n_parallel=n_parallel)
        assert objective.order != sorted(objective.order)
        assert together == alone


def marked(trial_number: int) -> Objective:
    """The valley, where one trial comes out far better."""
    numbers = iter(range(1000))
    return lambda point: outcome(valley(point).rmse - 1e3 * (next(numbers) == trial_number))


@pytest.mark.parametrize("changed", [0, 20])
def test_an_outcome_reaches_the_suggestions_from_lag_trials_later_on(changed: int) -> None:
    before = points(run(SEARCH_SPACES["seed"]))
    after = points(run(SEARCH_SPACES["seed"], marked(changed)))
    # hyperopt draws at random until it has been told of 20 outcomes
    first_told = max(changed, 20) + LAG
    assert after[: changed + LAG] == before[: changed + LAG]
    assert after[first_told:] != before[first_told:]


def test_the_search_learns() -> None:
    def objective(point: Mapping[str, Any]) -> Outcome:
        return outcome((np.log(point["learning_rate"]) + 1.5) ** 2)

    # five searches, for one may be out of luck; at random the logarithm is uniform from -3 to 0
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
    assert trials[0].point == SEARCH_SPACES["lossguide"].first[0]
    assert trials[1].point != trials[0].point


@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_of_one_trial_makes_one(name: str) -> None:
    assert [trial.number for trial in run(SEARCH_SPACES[name], max_evals=1)] == [0]


def test_a_space_without_dimensions_makes_one_trial_whatever_is_asked_for() -> None:
    assert points(run(SEARCH_SPACES["course_best"], max_evals=50, n_parallel=4)) == [{}]


def test_every_trial_is_told_as_it_starts_and_as_it_ends() -> None:
    with ThreadPoolExecutor(2) as executor:
        told = list(
            search.search(
                SEARCH_SPACES["seed"],
                valley,
                max_evals=7,
                seed=1,
                executor=executor,
                n_parallel=2,
            )
        )
    started = [trial.number for trial in told if trial.outcome is None]
    assert started == list(range(7))
    for number in started:
        first, second = (trial for trial in told if trial.number == number)
        assert first.outcome is None
        assert second == first._replace(outcome=valley(first.point))


def test_no_more_trials_run_at_once_than_asked_for() -> None:
    in_flight = n_most = 0
    with ThreadPoolExecutor(8) as executor:
        for trial in search.search(
            SEARCH_SPACES["seed"], valley, max_evals=20, seed=1, executor=executor, n_parallel=3
        ):
            in_flight += 1 if trial.outcome is None else -1
            n_most = max(n_most, in_flight)
    assert n_most == 3
    assert in_flight == 0


def test_a_trial_that_fails_ends_the_search_with_its_own_error() -> None:
    def fail(point: Mapping[str, Any]) -> Outcome:
        raise ArithmeticError("no trees")

    with pytest.raises(ArithmeticError, match="no trees"):
        run(SEARCH_SPACES["seed"], fail, n_parallel=2)


# --- the spaces

# source: the course's notebook; exponents of e but for the depth
COURSE_BOUNDS = {
    "max_depth": (4, 100),
    "learning_rate": (np.exp(-3), 1),
    "reg_alpha": (np.exp(-5), np.exp(-1)),
    "reg_lambda": (np.exp(-6), np.exp(-1)),
    "min_child_weight": (np.exp(-1), np.exp(3)),
}
LOSSGUIDE_BOUNDS = {
    "max_leaves": (16, 256),
    "min_child_weight": (1, 100),
    "subsample": (0.5, 1),
    "colsample_bytree": (0.3, 1),
    "reg_alpha": (1e-3, 10),
    "reg_lambda": (1e-3, 100),
}


@pytest.mark.parametrize(
    ("name", "bounds"), [("seed", COURSE_BOUNDS), ("lossguide", LOSSGUIDE_BOUNDS)]
)
def test_a_space_draws_within_its_bounds_and_whole_numbers_as_such(
    name: str, bounds: dict[str, tuple[float, float]]
) -> None:
    # hyperopt draws at random until it has been told of 20 outcomes
    drawn = [p for s in range(8) for p in points(run(SEARCH_SPACES[name], max_evals=12, seed=s))]
    whole = {"max_depth", "max_leaves"}
    for parameter, (low, high) in bounds.items():
        values = [point[parameter] for point in drawn[1:]]
        assert low <= min(values)
        assert max(values) <= high
        assert max(values) - min(values) > 0.5 * (high - low)
    for point in drawn:
        assert set(point) == set(bounds)
        for parameter, value in point.items():
            assert type(value) in ((int,) if parameter in whole else (int, float))


@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_every_space_makes_points_that_xgboost_takes(name: str, compact: Matrices) -> None:
    space = SEARCH_SPACES[name]
    assert search.select(name) is space
    # xgboost merely warns of a parameter it does not know: strict validation refuses it
    for trial in run(space, max_evals=3):
        parameters = dict(space.fixed) | trial.point | {"nthread": 1, "validate_parameters": True}
        parameters |= {key: min(v, 6) for key, v in parameters.items() if key == "max_depth"}
        assert search.fit(compact, parameters, rounds=2, patience=2, keep=False).rmse > 0


def test_an_unknown_space_is_answered_with_the_known_ones() -> None:
    with pytest.raises(TripError, match=r"Unknown search_space 'sed'.*'course_best', 'lossguide'"):
        search.select("sed")


# --- one trial


@pytest.fixture(scope="module")
def compact() -> Matrices:
    train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    encoder = features.fit("compact", train)
    return search.build_matrices(
        encoder.transform_train(train),
        train.trip_minutes,
        encoder.transform(valid),
        valid.trip_minutes,
    )


EAGER = {"objective": "reg:squarederror", "learning_rate": 0.5, "nthread": 1, "seed": 1}


def test_training_stops_when_it_no_longer_helps_and_tells_the_best_round(compact: Matrices) -> None:
    found = search.fit(compact, EAGER, rounds=500, patience=7, keep=True)
    assert len(found.curve) == found.best_round + 1 + 7 < 500
    assert found.best_round == np.argmin(found.curve)
    assert found.rmse == min(found.curve) == found.curve[found.best_round]
    assert found.seconds > 0


def test_the_booster_kept_is_cut_to_its_best_round(compact: Matrices) -> None:
    found = search.fit(compact, EAGER, rounds=500, patience=7, keep=True)
    assert found.booster.num_boosted_rounds() == found.best_round + 1
    error = found.booster.predict(compact.valid) - compact.valid.get_label()
    assert np.sqrt(np.mean(error**2)) == pytest.approx(found.rmse, rel=1e-5)


def test_training_makes_at_most_the_rounds_asked_for_and_keeps_no_booster(
    compact: Matrices,
) -> None:
    found = search.fit(compact, EAGER | {"learning_rate": 0.01}, rounds=5, patience=5, keep=False)
    assert len(found.curve) == 5
    assert found.best_round == 4
    assert found.booster is None


@pytest.mark.parametrize("features_name", ["compact", "course"])
def test_matrices_hold_the_rows_and_minutes_given(features_name: str) -> None:
    train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    encoder = features.fit(features_name, train)
    first, second = (encoder.transform(trips) for trips in (train, valid))
    found = search.build_matrices(first, train.trip_minutes, second, valid.trip_minutes)
    assert isinstance(found.train, xgb.QuantileDMatrix) == (features_name == "compact")
    for matrix, trips in ((found.train, train), (found.valid, valid)):
        assert (matrix.num_row(), matrix.num_col()) == (len(trips), len(encoder.names))
        assert np.array_equal(matrix.get_label(), trips.trip_minutes.astype(np.float32))


def test_one_thread_and_two_train_the_same_booster(compact: Matrices) -> None:
    space = SEARCH_SPACES["lossguide"]
    parameters = dict(space.fixed) | dict(space.first[0]) | {"seed": 42}
    with threadpool_limits(2):  # the tests' own limit is one
        one, two = (
            search.fit(compact, parameters | {"nthread": n}, rounds=20, patience=20, keep=True)
            for n in (1, 2)
        )
    assert one.booster.save_raw("ubj") == two.booster.save_raw("ubj")
    assert one.curve == two.curve
