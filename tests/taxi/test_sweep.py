"""The points of a sweep: their grid, their order, and which is best."""

from typing import Any

import pytest

from taxi.style import BLUE, GREY, ORANGE
from taxi.sweep import SweptPoint, best_points, draw_sweep, parameter_grid, rank_points, sweep_table


def make_point(name: str, rmse: float, **more: Any) -> SweptPoint:
    usual = {"model": "xgboost", "searched_rmse": rmse, "noise": 0.01, "trips": "feb"}
    return SweptPoint({"seed": name}, rmse, run_id=f"run-{name}", **(usual | more))


def names(points: list[SweptPoint]) -> list[str]:
    return [point.values["seed"] for point in points]


def test_a_grid_has_each_value_of_each_list_with_all_others() -> None:
    assert parameter_grid({"a": ["1", "2"], "b": ["x", "y"]}) == [
        *({"a": "1", "b": "x"}, {"a": "1", "b": "y"}),
        *({"a": "2", "b": "x"}, {"a": "2", "b": "y"}),
    ]
    assert parameter_grid({"a": ["1", "2"]}, [{"c": "7"}, {"c": "8"}]) == [
        *({"c": "7", "a": "1"}, {"c": "7", "a": "2"}),
        *({"c": "8", "a": "1"}, {"c": "8", "a": "2"}),
    ]
    assert parameter_grid({}) == [{}]


def test_where_one_baseline_wins_everywhere_the_search_decides() -> None:
    points = [
        make_point("1", 5.0, model="forest", searched_rmse=5.5),
        make_point("2", 5.0, model="forest", searched_rmse=5.2),
        make_point("3", 5.1),
    ]
    assert names(rank_points(points)) == ["2", "1", "3"]
    assert names(best_points(points)) == ["2"]


def test_points_on_other_valid_trips_are_not_compared() -> None:
    points = [make_point("1", 5.0), make_point("2", 4.0, trips="mar"), make_point("3", 3.0)]
    assert names(best_points(points)) == ["3", "2"]


def test_the_table_has_the_values_and_marks_the_best() -> None:
    points = [make_point("1", 5.0), make_point("2", 4.0, searched_rmse=None)]
    assert sweep_table(points) == [
        {
            **{"seed": "2", "rmse": 4.0, "model": "xgboost", "searched_rmse": "", "best": True},
            "run_id": "run-2",
        },
        {
            **{"seed": "1", "rmse": 5.0, "model": "xgboost", "searched_rmse": 5.0, "best": False},
            "run_id": "run-1",
        },
    ]


def test_points_that_state_other_parameters_are_rows_of_one_table() -> None:
    best = SweptPoint({"half_life": "4"}, 4.0, "xgboost", 4.0, 0.01, "feb", "run-1")
    other = best._replace(values={"half_life": "8", "max_evals": "3"}, rmse=5.0)
    rows = sweep_table([other, best])
    assert list(rows[0]) == list(rows[1])
    assert [(row["half_life"], row["max_evals"]) for row in rows] == [("4", ""), ("8", "3")]


@pytest.mark.parametrize("n", [1, 40])
def test_the_picture_names_every_point_best_at_the_top(n: int) -> None:
    points = [make_point(str(k), 5.0 + k / 100) for k in reversed(range(n))]
    (axis,) = draw_sweep(points, "seed=0 is best").axes
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == [f"seed={k}" for k in range(n)]
    low, high = axis.get_ylim()
    assert low > high


def test_each_point_is_drawn_at_its_error_and_the_searchs_own_where_a_baseline_won() -> None:
    won = make_point("2", 5.0, model="forest", searched_rmse=5.5)
    (axis,) = draw_sweep([won, make_point("1", 4.0), make_point("3", 6.0)], "seed=1 is best").axes
    drawn = [(*line.get_xydata()[0].tolist(), line.get_color()) for line in axis.lines]
    assert drawn == [(4.0, 0.0, ORANGE), (5.5, 1.0, GREY), (5.0, 1.0, BLUE), (6.0, 2.0, BLUE)]
    assert axis.get_xlabel().endswith("open: of the search, where a baseline won")
