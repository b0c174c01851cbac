import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from taxi import search_pictures, search_results
from taxi.boosting import Outcome
from taxi.search import Failure, Trial

RNG = np.random.default_rng(7)


def make_trial(number: int, *, rmse: float = 5.0, pruned: bool = False, **point: float) -> Trial:
    curve = [rmse + 1, rmse]
    outcome = Outcome(rmse, 1, curve, seconds=2.5, pruned=pruned, booster=None)
    return Trial(number, {"leaves": 32, "rate": 0.1} | point, outcome)


FAILED = Trial(2, {"leaves": 40, "rate": 0.2}, Failure("MemoryError: no room"))
MIXED = [make_trial(0), make_trial(1, pruned=True, rmse=5.5), FAILED, make_trial(3, rmse=4.5)]


def test_the_table_says_of_each_trial_how_it_ended_what_it_scored_and_what_it_tried() -> None:
    rows = search_results.trials_table(MIXED)
    assert [row["state"] for row in rows] == ["finished", "pruned", "failed", "finished"]
    assert rows[1]["rmse"] == 5.5
    assert (rows[1]["best_round"], rows[1]["n_rounds"], rows[1]["train_seconds"]) == (1, 2, 2.5)
    assert (rows[2]["leaves"], rows[2]["rmse"]) == (40, "")
    assert rows[2]["failure"] == "MemoryError: no room"
    assert {tuple(row) for row in rows} == {tuple(rows[0])}


def test_the_history_shows_finished_and_pruned_trials_and_the_best_so_far() -> None:
    (axis,) = search_pictures.draw_history(MIXED).axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert list(lines["finished (2)"].get_ydata()) == [5.0, 4.5]
    assert list(lines["pruned (1)"].get_xdata()) == [1]
    assert list(lines["best so far"].get_ydata()) == [5.0, 5.0, 4.5]
    assert (lines["best: trial 3"].get_xdata(), lines["best: trial 3"].get_ydata()) == ([3], [4.5])
    assert list(lines["failed (1)"].get_xdata()) == [2]


def test_a_trial_far_worse_than_most_is_drawn_at_the_edge_and_not_left_out() -> None:
    trials = [make_trial(n, rmse=5 + n / 1000) for n in range(20)] + [make_trial(20, rmse=90.0)]
    (axis,) = search_pictures.draw_history(trials).axes
    low, high = axis.get_ylim()
    assert high < 6
    (beyond,) = (line for line in axis.get_lines() if str(line.get_label()).startswith("above"))
    assert 20 in beyond.get_xdata()
    assert all(low < y < high for line in axis.get_lines() for y in line.get_ydata())


def test_a_long_learning_curve_is_thinned_and_keeps_its_ends_and_its_best_round() -> None:
    curve = [9.0 - n / 100 for n in range(300)] + [9.0] * 300
    trial = Trial(4, {}, Outcome(curve[299], 299, curve, seconds=1.0, pruned=False, booster=None))
    rows = search_results.curves_table([*MIXED, trial])
    shown = [row["round"] for row in rows if row["trial"] == 4]
    assert len(shown) <= search_results.MAX_POINTS
    assert {0, 299, 599} <= set(shown)
    assert [row["rmse"] for row in rows if row["trial"] == 3] == [5.5, 4.5]


def test_a_learning_curve_names_the_rounds_that_were_scored() -> None:
    outcome = Outcome(4.0, 5, [6.0, 4.0], 1.0, pruned=False, booster=None, score_every=3)
    rows = search_results.curves_table([Trial(0, {}, outcome)])
    assert [(row["round"], row["rmse"]) for row in rows] == [(2, 6.0), (5, 4.0)]
    assert search_results.trials_table([Trial(0, {}, outcome)])[0]["n_rounds"] == 6


def test_parallel_coordinates_have_an_axis_for_each_parameter_and_a_line_for_each_trial() -> None:
    axis = search_pictures.draw_parallel(MIXED).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["leaves", "rate"]
    drawn = [line for line in axis.get_lines() if len(line.get_xdata()) == 2]
    crossing = [line for line in drawn if list(line.get_xdata()) == [0, 1]]
    assert len(crossing) == 3 + 1  # all but the failed one, and the best again, highlighted
    assert [t.get_text() for t in axis.get_legend().texts] == ["best: trial 3"]


def test_the_ends_of_an_axis_say_what_they_are_and_the_axis_does_not_cross_them_out() -> None:
    trials = [make_trial(n, objective=kind) for n, kind in enumerate("ab")]
    axis = search_pictures.draw_parallel(trials).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()][-1] == "objective"
    assert [text.get_text() for text in axis.texts][-2:] == ["a", "b"]
    assert all(text.get_path_effects() for text in axis.texts)


def test_a_parameter_of_a_wide_range_is_laid_out_by_its_logarithm() -> None:
    trials = [make_trial(n, rate=rate) for n, rate in enumerate([0.001, 0.1, 10.0])]
    axis = search_pictures.draw_parallel(trials).axes[0]
    crossing = [line for line in axis.get_lines() if list(line.get_xdata()) == [0, 1]]
    assert sorted(line.get_ydata()[1] for line in crossing) == pytest.approx([0, 0, 0.5, 1])


def test_the_parameter_that_rmse_depends_on_is_the_important_one() -> None:
    trials = [
        make_trial(n, rmse=5 + rate, rate=rate, leaves=leaves)
        for n, (rate, leaves) in enumerate(RNG.random((40, 2)))
    ]
    found = search_results.parameter_importance(trials, seed=1)
    assert list(found) == ["rate", "leaves"]
    assert found["rate"] > 10 * abs(found["leaves"])
    assert search_pictures.draw_parameter_importance(found).axes


def test_where_all_trials_came_to_the_same_no_parameter_matters() -> None:
    outcome = MIXED[0].result
    points = [{"rate": n / 12, "leaves": n % 5, "objective": "a"} for n in range(10)]
    trials = [Trial(n, point, outcome) for n, point in enumerate(points)]
    # an objective that all of them share was not searched
    assert search_results.parameter_importance(trials, seed=1) == {"rate": 0, "leaves": 0}


def test_a_forest_explains_as_much_as_it_says_itself() -> None:
    points, rmse = RNG.random((12, 3)), np.arange(12)
    forest = RandomForestRegressor(20, random_state=1).fit(points, rmse)
    assert search_results.explained_variance(forest, points, rmse) == forest.score(points, rmse)


@pytest.mark.parametrize("trials", [MIXED, [Trial(n, {}, MIXED[0].result) for n in range(12)]])
def test_too_few_trials_or_nothing_searched_have_no_importance(trials: list[Trial]) -> None:
    assert search_results.parameter_importance(trials, seed=1) == {}
