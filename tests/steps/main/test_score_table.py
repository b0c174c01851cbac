"""What a pipeline prints last."""

import pytest

from steps.common.results import RMSES, Candidate, Code, Dataset
from steps.main.score_table import print_outcome

MONTHS = {"train": ["2021-01"], "valid": ["2021-02"], "test": ["2021-03"]}
SCORES = {"mae": 3.734, "r2": 0.785} | dict(
    zip(RMSES.values(), (5.388, 5.484, 5.757, 6.133), strict=True)
)
THROWN_OUT = SCORES | {"rmse": 2209.995, "r2": -36254.789}


def make_dataset(taxi: str) -> Dataset:
    return Dataset(taxi, True, "simulated", MONTHS, {})


def make_candidate(model: str, scores: dict[str, float]) -> Candidate:
    return Candidate("run", model, "compact", "uri", scores, Code("", False))


def test_the_models_are_a_table_of_80_columns_and_no_markdown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    candidates = [
        make_candidate("xgboost", SCORES),
        make_candidate("hist_gradient_boosting", SCORES | {"rmse": 12.6066, "r2": -0.0004}),
        make_candidate("linear_svr", THROWN_OUT),
        make_candidate("of_an_older_run", {"rmse": 5.0, "mae": 4.0, "r2": 0.7}),
    ]
    command = f"    mlflow run . {'-P name=value ' * 20}"
    print_outcome(
        make_dataset("green"), candidates, ["**xgboost** is `taxi` version 1.", "", command]
    )
    said = capsys.readouterr().out
    assert said == (
        "\nTrained on 2021-01, chosen on 2021-02. Errors there in minutes, with the metered\n"
        "distance, with one planned to ±10 % or ±20 %, and with none:\n"
        "\n"
        "model                   features    RMSE  ±10 %  ±20 %   none    MAE     R2\n"
        "xgboost                 compact    5.388  5.484  5.757  6.133  3.734  0.785\n"
        "hist_gradient_boosting  compact   12.607  5.484  5.757  6.133  3.734  0.000\n"
        "linear_svr              compact    2,210  5.484  5.757  6.133  3.734  < -99\n"
        "of_an_older_run         compact    5.000                       4.000  0.700\n"
        "\n"
        "xgboost is taxi version 1.\n"
        "\n"
        f"{command}\n"
    )


def test_of_trips_that_never_have_a_distance_there_is_one_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_outcome(make_dataset("fhv"), [make_candidate("xgboost", SCORES)], [])
    assert capsys.readouterr().out == (
        "\nTrained on 2021-01, chosen on 2021-02. Errors there in minutes:\n"
        "\n"
        "model    features   RMSE    MAE     R2\n"
        "xgboost  compact   5.388  3.734  0.785\n"
        "\n"
    )
