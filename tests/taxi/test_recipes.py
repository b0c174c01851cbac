import json
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from taxi import boosting, features, fitting, threads
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.model import TripModel
from taxi.recipes import MORE_ROUNDS, Member, Recipe
from taxi.rows import (
    has_distance,
    is_split_by_distance,
    rows_with_distance,
    rows_without_distance,
    weights_by_age,
)
from taxi.schema import Trips
from tests.conftest import make_trips, simulated_trips

TRAIN, VALID = simulated_trips("2021-01"), simulated_trips("2021-02")
POINT = {"objective": "reg:squarederror", "max_depth": 4, "subsample": 0.5, "seed": 3}
RECIPE = Recipe(
    "full",
    seed=3,
    members=(Member(POINT, 7),),
    members_without_distance=(Member(POINT, 5),),
    weight_without_distance=0.1,
    half_life=8.0,
)


def fitted(recipe: Recipe, n_threads: int = 1) -> TripModel:
    columns = ([getattr(part, one.name) for part in (TRAIN, VALID)] for one in fields(Trips))
    trips = Trips(*map(np.concatenate, columns))
    encoder = features.fit_encoder(recipe.features, trips)
    train = partial(fitting.train_locally, n_threads=n_threads)
    return fitting.fit_boosters(recipe, trips, "green", encoder, train)


def test_a_recipe_is_rebuilt_from_its_json() -> None:
    assert Recipe.restore(json.loads(json.dumps(RECIPE.state()))) == RECIPE


def test_a_recipe_from_before_rates_grew_keeps_its_rate_in_all_rounds() -> None:
    state = json.loads(json.dumps(RECIPE.state()))
    state["members"] = [member[:2] for member in state["members"]]
    (member,) = Recipe.restore(state).members
    assert (member, member.rates()) == (Member(POINT, 7), [])


def test_a_recipe_from_before_answers_were_blended_blends_none() -> None:
    state = RECIPE.state()
    del state["blind_share"]
    assert Recipe.restore(state) == replace(RECIPE, weight_without_distance=0.0)


@pytest.mark.parametrize(("bins", "wanted"), [(128, 256), (256, 256), (512, 512)])
def test_more_trips_get_finer_bins(bins: int, wanted: int) -> None:
    assert replace(RECIPE, max_bin=bins).for_refit(9).max_bin == wanted


def test_more_trips_get_more_rounds_and_no_other_points() -> None:
    more = RECIPE.for_refit(9)
    assert [member.rounds for member in (*more.members, *more.members_without_distance)] == [10, 7]
    assert more.members[0].parameters == POINT
    assert (more.features, more.seed, more.half_life) == ("full", 3, 8.0)
    assert more.weight_without_distance == 0.1


@pytest.mark.parametrize(
    ("n_trips", "rate", "wanted"),
    [
        (1_000_000, 0.2, (0.05, 0.35, 12)),
        (1_000_000, 0.12, (0.03, 0.21, 12)),
        (1_000_000, 0.8, (0.05, 0.35, 48)),
        (1_000_000, 0.1, (0.1, 0.0, 10)),
        (1_000_001, 0.2, (0.2, 0.0, 10)),
    ],
)
def test_few_trips_are_learned_in_steps_that_begin_small(
    n_trips: int, rate: float, wanted: tuple[float, float, int]
) -> None:
    member = Member({**POINT, "learning_rate": rate}, 7)
    more = replace(RECIPE, members=(member,), members_without_distance=(member,)).for_refit(n_trips)
    for again in (*more.members, *more.members_without_distance):
        assert (again.parameters["learning_rate"], again.last_rate, again.rounds) == pytest.approx(
            wanted
        )
        assert {**again.parameters, "learning_rate": rate} == member.parameters


def test_rates_grow_by_the_same_factor_from_the_first_to_the_last() -> None:
    assert Member({"learning_rate": 0.1}, 3, 0.4).rates() == [0.1, 0.2, 0.4]
    assert Member({"learning_rate": 0.1}, 1, 0.4).rates() == [0.1]


def test_growing_rates_are_as_many_steps_as_the_rounds_of_the_search_were_with_more_of_them() -> (
    None
):
    member = Member({**POINT, "learning_rate": 0.2}, 100)
    (again,) = replace(RECIPE, members=(member,)).for_refit(9).members
    assert sum(again.rates()) == pytest.approx(100 * 0.2 * MORE_ROUNDS, rel=0.01)


def test_each_round_has_its_own_rate() -> None:
    grown = Member({**POINT, "learning_rate": 0.1}, 2, 0.5)
    (booster,), (steady,) = (
        fitted(replace(RECIPE, members=(member,))).estimators
        for member in (grown, grown._replace(last_rate=0.0))
    )
    assert booster[:1].save_raw() == steady[:1].save_raw()
    second, second_of_steady = (one[1:2].trees_to_dataframe() for one in (booster, steady))
    is_leaf = second["Feature"] == "Leaf"
    minutes, of_steady = (one["Gain"][is_leaf].to_numpy() for one in (second, second_of_steady))
    assert minutes == pytest.approx(5 * of_steady, rel=1e-4)


def test_a_fitted_recipe_has_its_boosters_with_its_rounds_whatever_the_threads() -> None:
    model = fitted(RECIPE)
    assert [booster.num_boosted_rounds() for booster in model.estimators] == [7]
    assert [booster.num_boosted_rounds() for booster in model.boosters_without_distance] == [5]
    assert model.weight_without_distance == 0.1
    assert fitted(RECIPE, n_threads=2).to_files() == model.to_files()


def test_one_booster_has_all_threads_where_it_has_the_rows_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def train_once(parameters: Mapping[str, Any], *given: Any, **options: Any) -> Any:
        asked.append(parameters["nthread"])
        return boosting.train_xgboost(parameters, *given, **options)

    monkeypatch.setattr(fitting, "train_xgboost", train_once)
    few = fitted(RECIPE, n_threads=2)
    monkeypatch.setattr(threads, "ROWS_PER_THREAD", 10)
    assert fitted(RECIPE, n_threads=2).to_files() == few.to_files()
    assert asked == [1, 1, 2, 2]


def test_a_recipe_on_the_trips_of_the_search_answers_as_the_trial_did_to_the_bit() -> None:
    encoder = features.fit_encoder("full", TRAIN)
    rows = rows_with_distance(encoder, TRAIN, VALID)
    job = TrainingJob(POINT | {"nthread": 1}, rounds=40, patience=5, keep_booster=True)
    outcome = train_booster(build_matrices(rows), job)
    members, without_distance = (Member(POINT, outcome.best_round + 1),), (Member(POINT, 1),)
    recipe = Recipe("full", seed=3, members=members, members_without_distance=without_distance)
    train = partial(fitting.train_locally, n_threads=1)
    model = fitting.fit_boosters(recipe, TRAIN, "green", encoder, train)
    assert outcome.booster is not None
    expected = TripModel("green", encoder, [outcome.booster], model.boosters_without_distance)
    assert np.array_equal(expected.predict(VALID), model.predict(VALID))


def test_rows_without_distance_hold_no_distance_and_nothing_missing() -> None:
    encoder = features.fit_encoder("full", TRAIN)
    rows = rows_without_distance(encoder, TRAIN, VALID)
    for matrix in (rows.train, rows.valid):
        assert np.isfinite(matrix).all()
        for name in ("distance_miles", "crookedness"):
            assert not matrix[:, encoder.names.index(name)].any()
    assert len(rows.train) == len(TRAIN)


def test_rows_with_a_distance_are_the_only_ones_kept() -> None:
    rows = rows_with_distance(features.fit_encoder("full", TRAIN), TRAIN, VALID)
    assert len(rows.train) == has_distance(TRAIN).sum() < len(TRAIN)
    assert np.isfinite(rows.train).all()
    assert np.array_equal(rows.valid_y, VALID.trip_minutes[has_distance(VALID)])


@pytest.mark.parametrize(
    ("name", "miles", "wanted"),
    [("full", 2.5, True), ("full", np.nan, False), ("course", 2.5, False)],
)
def test_trips_are_split_by_distance_where_most_have_one_and_columns_are_dense(
    name: str, miles: float, wanted: bool
) -> None:
    trips = make_trips(9, distance_miles=miles)
    assert is_split_by_distance(features.fit_encoder(name, trips), trips, trips) is wanted


# --- the weight of old trips


def test_a_trip_counts_half_after_its_half_life_and_one_of_the_latest_month_whole() -> None:
    months = np.array(["2022-01-31T23:59", "2022-05-01", "2022-09-30"], "M8[m]")
    assert weights_by_age(months, 4.0) == pytest.approx([0.25, 0.5, 1.0])


@pytest.mark.parametrize(
    ("months", "half_life"), [(["2022-01", "2022-05"], 0), (["2022-01"] * 2, 8)]
)
def test_trips_of_one_month_or_without_a_half_life_have_no_weights(
    months: list[str], half_life: float
) -> None:
    assert weights_by_age(np.array(months, "M8[m]"), half_life) is None


def test_no_half_life_is_so_short_that_a_weight_is_zero() -> None:
    weights = weights_by_age(np.array(["1970-01", "2022-05"], "M8[m]"), 1e-300)
    assert weights is not None
    assert (weights.astype(np.float32) > 0).all()
