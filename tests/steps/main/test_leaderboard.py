"""The table of models on the page of a pipeline."""

from steps.common.results import RMSES, Candidate, Code, Dataset, RegisterResult
from steps.main.headline import PipelineOutcome
from storage.tracking import tags
from taxi.distances import DISTANCE_KINDS, METERED, MISSING
from tests.entry import entry

SCORES = {"mae": 3.7, "r2": 0.8} | dict(zip(RMSES.values(), (5.0, 5.1, 5.4, 6.3), strict=True))


def make_candidate(model: str, **scores: float) -> Candidate:
    return Candidate("run", model, "full", "uri", SCORES | scores, Code("", False))


def test_the_leaderboard_has_a_column_for_each_kind_of_distance() -> None:
    heads, ruled, row = entry("main").leaderboard([make_candidate("tree")], "green")
    assert heads == (
        "| model | features | RMSE, metered distance | ±10 % | ±20 % | no distance "
        "| MAE, metered | R2, metered |"
    )
    assert row == "| tree | full | 5.000 | 5.100 | 5.400 | 6.300 | 3.700 | 0.800 |"
    assert ruled == "| --- | --- |" + " ---: |" * 6  # numbers are right-aligned


def test_the_page_writes_a_score_as_the_terminal_does() -> None:
    scores = make_candidate("tree", rmse=2209.9951, r2=-0.0001), make_candidate("svr", r2=-36254.8)
    *_, tree, svr = entry("main").leaderboard(scores, "green")
    assert tree.startswith("| tree | full | 2,210 | 5.100 ")
    assert tree.endswith(" | 0.000 |")
    assert svr.endswith(" | < -99 |")


def test_a_score_that_an_older_run_lacks_is_an_empty_cell() -> None:
    old = Candidate("run", "tree", "full", "uri", {"rmse": 5, "mae": 4, "r2": 0.7}, Code("", False))
    *_, row = entry("main").leaderboard([old], "green")
    assert row == "| tree | full | 5.000 |  |  |  | 4.000 | 0.700 |"


def test_the_best_by_the_distance_asked_for_comes_first_and_is_the_headline() -> None:
    near, blind = make_candidate("near", rmse=4.0), make_candidate("blind", rmse_missing=5.0)
    main = entry("main")
    assert main.ranked([blind, near], "metered") == [near, blind]
    best, _ = main.ranked([near, blind], MISSING)
    tested = {tags.TEST.of(name): 9.0 for name in SCORES}
    registered = RegisterResult("run", "taxi", "1", "1", "best", "blind", tested)
    assert main.headline_scores(best, registered) == blind.scores | tested


def test_what_is_odd_about_months_stands_on_the_page() -> None:
    list_odd_months = entry("main").list_odd_months
    assert list_odd_months(["2021-02 is short"]) == [
        "Check these months:",
        "",
        "- 2021-02 is short",
        "",
    ]
    assert list_odd_months([]) == []


def test_the_verdict_tells_the_test_rmse_with_each_kind_of_distance() -> None:
    tested = {tags.TEST.of(name): value for name, value in SCORES.items()}
    registered = RegisterResult("run", "taxi", "1", "1", "best", "tree", tested)
    said = entry("main").verdict(registered, "2021-03", "green")[0]
    assert "RMSE on 2021-03: 5.000 min with metered distance, 5.100 min with " in said
    assert [words for words in DISTANCE_KINDS.values() if f" min with {words}" not in said] == []


def test_a_champion_is_told_by_what_it_gained_and_the_first_one_by_what_it_was_asked() -> None:
    tested = {tags.TEST.of(name): value for name, value in SCORES.items()}
    first = RegisterResult("run", "taxi", "1", "1", "R2 is 0.8", "tree", tested)
    verdict = entry("main").verdict
    assert verdict(first, "2021-03", "green")[2] == "It is the champion: R2 is 0.8."
    ends = {
        tags.RMSE_IMPROVEMENT.of(end): at for end, at in (("", 0.5), ("_low", 0.4), ("_high", 0.6))
    }
    second = first._replace(metrics=tested | ends)
    assert verdict(second, "2021-03", "green")[2] == (
        "It is the champion: its RMSE is 0.500 min below the previous champion's on the same "
        "trips (95 % interval 0.400 to 0.600), and it passes every other check of the gate."
    )


def test_what_came_of_it_stands_before_what_to_try_next() -> None:
    dataset = make_dataset(["2023-01"], ["2023-02"])
    lines = entry("main").conclusion(
        PipelineOutcome(dataset, [], None, METERED, "mlflow run .", "-P test_months=next")
    )
    assert lines[0].startswith("Nothing was registered")
    assert lines[-2].startswith("The same months a year earlier")


def test_trips_that_never_have_a_distance_have_one_error() -> None:
    main = entry("main")
    heads, _, row = main.leaderboard([make_candidate("tree")], "fhv")
    assert heads == "| model | features | RMSE | MAE | R2 |"
    assert row == "| tree | full | 5.000 | 3.700 | 0.800 |"
    tested = {tags.TEST.of(name): value for name, value in SCORES.items()}
    registered = RegisterResult("run", "taxi", "1", "1", "best", "tree", tested)
    said = main.verdict(registered, "2021-03", "fhv")[0]
    assert said.endswith("RMSE on 2021-03: 6.300 min with no distance.")


# --- months worth adding


def make_dataset(train: list[str], valid: list[str], *, is_simulated: bool = False) -> Dataset:
    return Dataset("green", is_simulated, "tlc", {"train": train, "valid": valid}, {})


def test_the_months_of_a_year_earlier_are_named_with_those_there_are() -> None:
    line, _ = entry("main").suggest_more_months(make_dataset(["2023-01"], ["2023-02"]))
    assert "`-P train_months=2022-01,2022-02,2023-01`" in line


def test_no_months_are_named_that_are_there_already_or_would_be_made_up() -> None:
    main = entry("main")
    assert (
        main.suggest_more_months(make_dataset(["2022-01", "2022-02", "2023-01"], ["2023-02"])) == []
    )
    assert main.suggest_more_months(make_dataset(["2021-01"], ["2021-02"], is_simulated=True)) == []
    earlier = make_dataset(["2023-01"], ["2023-02"])
    earlier.months["test"] = ["2022-02"]  # the suggested train months would clash with it
    assert main.suggest_more_months(earlier) == []
    first = make_dataset(["2020-02"], ["2020-01"])._replace(taxi="fhvhv")  # exist since 2019-02
    assert main.suggest_more_months(first) == []
    assert main.suggest_more_months(first._replace(taxi="green"))
