import numpy as np
import pytest

from taxi import TripError, features, search, spaces
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.rows import make_rows
from taxi.spaces import LAG, SEARCH_SPACES, lag_of
from tests.conftest import simulated_trips
from tests.taxi.searches import points, run


@pytest.mark.parametrize("parallelism", [0, 1, LAG])
def test_up_to_lag_trials_at_once_leave_the_search_as_it_is(parallelism: int) -> None:
    assert lag_of(parallelism) == LAG


def test_more_trials_at_once_make_a_suggestion_look_back_as_far() -> None:
    assert lag_of(LAG + 1) == LAG + 1


def test_the_search_looks_back_by_that_lag_unless_told_otherwise() -> None:
    assert search.LAG is spaces.LAG


# --- the spaces

# source: the course's notebook; exponents of e, except for the depth
COURSE_BOUNDS = {
    "max_depth": (4, 100),
    "learning_rate": (np.exp(-3), 1),
    "reg_alpha": (np.exp(-5), np.exp(-1)),
    "reg_lambda": (np.exp(-6), np.exp(-1)),
    "min_child_weight": (np.exp(-1), np.exp(3)),
}
LOSSGUIDE_BOUNDS = {
    "max_leaves": (32, 192),
    "min_child_weight": (5, 150),
    "subsample": (0.6, 1),
    "colsample_bytree": (0.4, 1),
    "reg_alpha": (1e-2, 10),
    "reg_lambda": (5, 100),
}


@pytest.mark.parametrize(
    ("name", "bounds"), [("seed", COURSE_BOUNDS), ("lossguide", LOSSGUIDE_BOUNDS)]
)
def test_a_space_draws_within_its_bounds_and_whole_numbers_as_such(
    name: str, bounds: dict[str, tuple[float, float]]
) -> None:
    # hyperopt draws at random until it knows 20 outcomes
    drawn = [p for s in range(8) for p in points(run(SEARCH_SPACES[name], max_evals=18, seed=s))]
    whole = {"max_depth", "max_leaves"}
    for parameter, (low, high) in bounds.items():
        space = SEARCH_SPACES[name]
        values = [space.point(point)[parameter] for point in drawn[1:]]
        slack = 1e-9 * high
        low, high = low - slack, high + slack
        assert low <= min(values)
        assert max(values) <= high
        assert max(values) - min(values) > 0.5 * (high - low)
    for point in drawn:
        assert set(point) == {"objective", *bounds}
        for parameter, value in point.items():
            if parameter == "objective":
                continue
            assert type(value) in ((int,) if parameter in whole else (int, float))


@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_every_space_makes_points_that_xgboost_takes(
    name: str, recwarn: pytest.WarningsRecorder
) -> None:
    train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    matrices = build_matrices(make_rows(features.fit_encoder("compact", train), train, valid))
    space = SEARCH_SPACES[name]
    assert spaces.select_space(name) is space
    for trial in run(space, max_evals=3):
        parameters = dict(space.fixed) | trial.point | {"nthread": 1, "validate_parameters": True}
        parameters |= {key: min(v, 6) for key, v in parameters.items() if key == "max_depth"}
        assert train_booster(matrices, TrainingJob(parameters, rounds=2, patience=2)).rmse > 0
    # xgboost only warns about a parameter that it does not know
    assert [str(warning.message) for warning in recwarn if "not used" in str(warning.message)] == []


def test_an_unknown_space_is_answered_with_the_known_ones() -> None:
    with pytest.raises(TripError) as refused:
        spaces.select_space("sed")
    assert str(refused.value) == (
        f"Unknown search_space 'sed'. Choose from {sorted(SEARCH_SPACES)}."
    )
