"""What the page of a pipeline shows without being unfolded."""

from typing import Any

import pytest

from steps.common import page
from steps.common.results import RMSES, Candidate, Code, Dataset, RegisterResult
from steps.main.headline import PipelineOutcome, headline
from storage.tracking import tags
from taxi.distances import METERED, MISSING
from tests.entry import entry

MONTHS = {"train": ["2021-01"], "valid": ["2021-02"], "test": ["2021-03"]}
TESTED = {tags.TEST.of(name): 5.5 for name in RMSES.values()}


def make_dataset(**months: list[str]) -> Dataset:
    return Dataset("green", False, "tlc", MONTHS | months, {})


def make_candidate(model: str, rmse: float, **others: float) -> Candidate:
    scores = dict.fromkeys(RMSES.values(), rmse) | others
    return Candidate("run", model, "full", "uri", scores, Code("", False))


def first_lines(registered: RegisterResult | None, *models: Candidate, kind: str = METERED) -> Any:
    missing_option = "-P test_months=next"
    return headline(
        PipelineOutcome(make_dataset(), models, registered, kind, "mlflow run .", missing_option)
    )


def register(champion: str) -> RegisterResult:
    return RegisterResult("run", "taxi", "2", champion, "best", "tree", TESTED)


def test_it_says_what_won_by_how_much_and_the_next_command() -> None:
    models = make_candidate("tree", 5.0), make_candidate("tree", 5.1), make_candidate("mean", 6.25)
    assert first_lines(register("2"), *models) == [
        "**tree won: RMSE 5.000 min, 1.250 (20.0 %) below mean** on 2021-02 (valid)",
        "Test RMSE **5.500 min** on 2021-03: champion, `taxi` version 2",
        "Next: `mlflow models serve -m models:/taxi@champion --env-manager uv --port 5001`",
    ]


def test_models_without_any_error_are_not_compared_by_share() -> None:
    won, *_ = first_lines(None, make_candidate("tree", 0.0), make_candidate("mean", 0.0))
    assert won == "**tree won: RMSE 0.000 min, 0.000 (0.0 %) below mean** on 2021-02 (valid)"


@pytest.mark.parametrize(
    ("champion", "stands", "then"),
    [
        ("1", "`taxi` version 2; version 1 stays champion", "mlflow models serve"),
        ("", "`taxi` version 2; no champion", "another bound: best"),
    ],
)
def test_one_that_is_no_champion_says_who_is(champion: str, stands: str, then: str) -> None:
    won, stood, following = first_lines(register(champion), make_candidate("tree", 5.0))
    assert won == "**tree won: RMSE 5.000 min** on 2021-02 (valid)"
    assert stood.endswith(stands)
    assert then in following


def test_one_that_was_only_tested_is_said_to_be_in_no_registry() -> None:
    tested = register("")._replace(model_name="", version="", reasons="test_only=true")
    _, stands, then = first_lines(tested, make_candidate("tree", 5.0))
    assert stands.endswith("2021-03: not registered (test_only=true)")
    assert then == "Next: the same with `-P test_only=false`, which registers it"
    (said,) = entry("main").verdict(tested, "2021-03", "green")
    assert said.startswith("**tree** is not registered (test_only=true). RMSE on 2021-03: 5.500")


def test_without_test_months_it_says_how_to_have_some() -> None:
    *_, untested, following = first_lines(None, make_candidate("tree", 5.0))
    assert untested == "Not tested, so not registered."
    assert "-P test_months=next" in following


def test_the_distance_that_decides_is_the_one_shown() -> None:
    best = make_candidate("blind", 9.0, **{RMSES[MISSING]: 6.0})
    won, *_ = first_lines(register("2"), best, make_candidate("near", 7.0), kind=MISSING)
    assert won.startswith("**blind won: RMSE 6.000 min, 1.000 ")


@pytest.mark.parametrize(
    ("train", "valid", "rmse", "named"),
    [
        (["2021-01"], ["2021-02"], 5.388, "green 2021-01 > 02 · 5.39 min"),
        (["2021-12"], ["2022-01"], None, "green 2021-12 > 2022-01"),
        (
            ["2021-11", "2021-12", "2022-01"],
            ["2022-02"],
            4,
            "green 2021-11..2022-01 > 02 · 4.00 min",
        ),
        (["2020-01", "2021-01"], ["2021-02"], None, "green 2020-01,2021-01 > 02"),
    ],
)
def test_a_run_is_named_by_its_months_and_its_error(
    train: list[str], valid: list[str], rmse: float | None, named: str
) -> None:
    assert page.title(make_dataset(train=train, valid=valid), rmse) == named
