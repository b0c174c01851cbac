import shutil
from threading import Event

import numpy as np
import pytest
import xgboost as xgb
from threadpoolctl import threadpool_limits

from taxi import TripError, features
from taxi.boosting import (
    Matrices,
    PruningThreshold,
    TrainingJob,
    build_matrices,
    extrapolated_rmse,
    train_booster,
)
from taxi.rows import Rows, make_rows
from taxi.spaces import SEARCH_SPACES, Pruning
from tests.conftest import simulated_trips


def make(features_name: str) -> Rows:
    train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    return make_rows(features.fit_encoder(features_name, train), train, valid)


@pytest.fixture(scope="module")
def compact() -> Matrices:
    return build_matrices(make("compact"))


EAGER = {"objective": "reg:squarederror", "learning_rate": 0.5, "nthread": 1, "seed": 1}


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_no_booster_for_a_gpu_is_trained_where_there_is_none(compact: Matrices) -> None:
    job = TrainingJob(EAGER | {"device": "cuda"}, rounds=2, patience=2)
    with pytest.raises(TripError, match="finds no GPU here"):
        train_booster(compact, job)


def test_training_stops_when_it_no_longer_helps_and_returns_the_best_round(
    compact: Matrices,
) -> None:
    found = train_booster(compact, TrainingJob(EAGER, rounds=500, patience=7, keep_booster=True))
    assert len(found.curve) == found.best_round + 1 + 7 < 500
    assert found.best_round == np.argmin(found.curve)
    assert found.rmse == min(found.curve) == found.curve[found.best_round]
    assert found.seconds > 0


def test_the_booster_kept_is_cut_to_its_best_round(compact: Matrices) -> None:
    found = train_booster(compact, TrainingJob(EAGER, rounds=500, patience=7, keep_booster=True))
    assert found.booster.num_boosted_rounds() == found.best_round + 1
    error = found.booster.predict(compact.valid) - compact.valid.get_label()
    assert np.sqrt(np.mean(error**2)) == pytest.approx(found.rmse, rel=1e-5)


def test_training_makes_at_most_the_rounds_asked_for_and_keeps_no_booster(
    compact: Matrices,
) -> None:
    found = train_booster(
        compact, TrainingJob(EAGER | {"learning_rate": 0.01}, rounds=5, patience=5)
    )
    assert len(found.curve) == 5
    assert found.best_round == 4
    assert found.booster is None


def test_a_booster_that_is_scored_in_every_other_round_grows_as_one_scored_in_each(
    compact: Matrices,
) -> None:
    job = TrainingJob(EAGER | {"learning_rate": 0.1}, rounds=9, patience=40, keep_booster=True)
    each = train_booster(compact, job._replace(rounds=10))
    other = train_booster(compact, job._replace(score_every=2))
    assert other.curve == each.curve[1::2]
    assert (other.rounds, other.n_rounds) == ([1, 3, 5, 7, 9], 10)
    assert (each.rounds, each.n_rounds) == (list(range(10)), 10)
    assert (other.rmse, other.best_round) == (each.rmse, each.best_round) == (each.curve[9], 9)
    assert other.booster.save_raw("ubj") == each.booster.save_raw("ubj")


def test_patience_and_warm_up_are_rounds_however_many_of_them_are_scored(
    compact: Matrices,
) -> None:
    job = TrainingJob(EAGER, rounds=500, patience=8, keep_booster=True, score_every=4)
    found = train_booster(compact, job)
    assert found.n_rounds == found.best_round + 1 + 8 < 500
    assert found.booster.num_boosted_rounds() == found.best_round + 1
    hopeless = PruningThreshold(0.0, Pruning(warmup_rounds=12))
    assert train_booster(compact, job._replace(pruning_threshold=hopeless)).n_rounds == 12


@pytest.mark.parametrize("features_name", ["compact", "course"])
def test_matrices_hold_the_rows_and_minutes_given(features_name: str) -> None:
    rows = make(features_name)
    found = build_matrices(rows)
    assert isinstance(found.train, xgb.QuantileDMatrix) == (features_name == "compact")
    assert (found.train.num_row(), found.train.num_col()) == rows.train.shape
    assert (found.valid.num_row(), found.valid.num_col()) == rows.valid.shape
    assert np.array_equal(found.train.get_label(), rows.train_y.astype(np.float32))
    assert np.array_equal(found.valid.get_label(), rows.valid_y.astype(np.float32))


@pytest.mark.parametrize("features_name", ["compact", "course"])
def test_the_key_of_rows_changes_with_any_value_in_them_and_with_nothing_else(
    features_name: str,
) -> None:
    rows = make(features_name)
    assert make(features_name).key == rows.key
    for name in ("train", "train_y", "valid", "valid_y"):
        other = getattr(rows, name).copy()
        values = other if isinstance(other, np.ndarray) else other.data
        values.flat[-1] = np.nextafter(values.flat[-1], 1e9)
        assert rows._replace(**{name: other}).key != rows.key
    weight = np.ones(len(rows.train_y))
    keys = {
        rows.key,
        rows._replace(max_bin=128).key,
        rows._replace(weight=weight).key,
        rows._replace(weight=weight / 2).key,
    }
    assert len(keys) == 4


def test_a_curve_is_extrapolated_as_its_gains_shrink() -> None:
    # the last two doublings gained 4 and 2: 1 and 0.5 are still to come
    curve = [9.0, 8.0, 7.0, 4.0, 3.5, 3.0, 2.5, 2.0]
    assert extrapolated_rmse(curve, n_doublings=1) == 2.0 - 1.0
    assert extrapolated_rmse(curve, n_doublings=2) == 2.0 - 1.0 - 0.5


def test_a_doubling_that_began_between_two_points_began_on_the_line_between_them() -> None:
    # 9 after a quarter of the rounds (halfway from 10 to 8), 6 after half: gains of 3 and 2
    found = extrapolated_rmse([10.0, 8.0, 6.0, 5.0, 4.5, 4.0], n_doublings=1)
    assert found == pytest.approx(4.0 - 2.0 * 2 / 3)


def test_a_curve_whose_gains_grow_is_not_expected_to_grow_on() -> None:
    grows = [8.0, 8.0, 8.0, 7.0, 6.0, 6.0, 5.0, 4.0]
    assert extrapolated_rmse(grows, n_doublings=2) == 4.0 - 3.0 - 3.0
    assert extrapolated_rmse([8.0, *[9.0] * 6, 7.0], n_doublings=1) == 7.0 - 1.0


def test_what_is_extrapolated_is_the_best_so_far() -> None:
    falls = [9.0, 8.0, 7.0, 4.0, 3.5, 3.0, 2.0]
    assert extrapolated_rmse([*falls, 5.0], 2) == extrapolated_rmse([*falls, 2.0], 2)


def test_a_trial_is_pruned_in_the_first_round_whose_extrapolated_rmse_misses_the_threshold(
    compact: Matrices,
) -> None:
    job = TrainingJob(EAGER | {"learning_rate": 0.1}, rounds=40, patience=40)
    free = train_booster(compact, job)
    rule = Pruning(warmup_rounds=8, n_doublings=1)
    extrapolated = [
        extrapolated_rmse(free.curve[:made], 1) for made in range(1, len(free.curve) + 1)
    ]
    low = min(extrapolated[7:])
    assert not train_booster(
        compact, job._replace(pruning_threshold=PruningThreshold(max(extrapolated), rule))
    ).pruned
    threshold = PruningThreshold((low + max(extrapolated[7:])) / 2, rule)
    made = next(n for n in range(8, len(extrapolated) + 1) if extrapolated[n - 1] > threshold.rmse)
    found = train_booster(compact, job._replace(pruning_threshold=threshold))
    assert found.pruned
    assert found.curve == free.curve[:made]
    assert found.rmse == min(free.curve[:made])


def test_a_trial_is_not_pruned_before_the_warm_up_is_over(compact: Matrices) -> None:
    hopeless = PruningThreshold(0.0, Pruning(warmup_rounds=8))
    found = train_booster(
        compact, TrainingJob(EAGER, rounds=40, patience=40, pruning_threshold=hopeless)
    )
    assert found.pruned
    assert len(found.curve) == 8


def test_training_ends_after_the_round_in_which_it_is_stopped(compact: Matrices) -> None:
    stop = Event()
    stop.set()
    found = train_booster(compact, TrainingJob(EAGER, rounds=500, patience=500), stop)
    assert len(found.curve) == 1
    assert not found.pruned


def test_one_thread_and_two_train_the_same_booster(compact: Matrices) -> None:
    space = SEARCH_SPACES["lossguide"]
    parameters = dict(space.fixed) | space.parameters(0, space.first[0]) | {"seed": 42}
    with threadpool_limits(2):  # in tests the limit is otherwise one
        jobs = (
            TrainingJob(parameters | {"nthread": n}, 20, patience=20, keep_booster=True)
            for n in (1, 2)
        )
        one, two = (train_booster(compact, job) for job in jobs)
    assert one.booster.save_raw("ubj") == two.booster.save_raw("ubj")
    assert one.curve == two.curve
