import pytest

from steps.register.card import MAX_DESCRIPTION, description
from taxi import card
from taxi.bootstrap import Interval
from taxi.card import CardFacts
from taxi.coverage import GroupCoverage
from taxi.evaluation import GroupErrors
from taxi.gate import Check
from taxi.schema import TAXIS


def make_facts(**changed: object) -> CardFacts:
    """A card's facts; state only what matters."""
    dropped = {"time missing": 0, "zone missing": 3}
    about = {"uri": "simulated:1000:42", "sha256": "ab" * 32, "n_bytes": 9, "n_raw": 1000}
    files = [
        {"split": split, "month": month, **about, "n_kept": 997, **dropped}
        for split, month in (("train", "2021-01"), ("valid", "2021-02"), ("test", "2021-03"))
    ]
    ordinary: dict[str, object] = {
        "name": "nyc-taxi-duration",
        "taxi": "green",
        "model": "xgboost",
        "outcome": "promoted",
        "months": {"train": ["2021-01"], "valid": ["2021-02"], "test": ["2021-03"]},
        "files": files,
        "splits_sha256": dict.fromkeys(("train", "valid", "test"), "cd" * 32),
        "is_simulated": False,
        "feature_set": "compact",
        "features": ["hour", "weekday"],
        "rmse_valid": 5.0,
        "rmse_by_distance": {"metered": 5.1, "planned_10": 5.2, "planned_20": 5.4, "missing": 6.3},
        "n_without_distance": 61,
        "n_test": 997,
        "scores": {"rmse": Interval(5.1, 5.0, 5.2), "r2": Interval(0.8, 0.7, 0.9)},
        "checks": [Check("test RMSE with metered distance", "5.100 min", "at most 7", True)],
        "groups": [
            GroupErrors("hour", "07", 10, 4.0, 3.0, 0.1),
            GroupErrors("distance", "01.0..02.0 miles", 9, 6.0, 5.0, 0.2),
        ],
        "coverage": [
            GroupCoverage("all", "all", 997, 0.812, 0.09, 0.098, 11.5),
            GroupCoverage("hour", "07", 10, 0.7, 0.1, 0.2, 12.0),
            GroupCoverage("distance", "no distance", 61, 0.75, 0.1, 0.15, 14.0),
            GroupCoverage("distance", "all trips, asked with none", 997, 0.79, 0.1, 0.11, 13.0),
        ],
        "fitted_to": ["train", "valid"],
        "commit": "0123abcd",
        "is_dirty": False,
        "command": "mlflow run . -e register",
    }
    return CardFacts(**ordinary | changed)


@pytest.mark.parametrize(
    "told",
    [
        "**xgboost**, promoted. Trained by commit 0123abcd on real trips.",
        "| RMSE | 5.100 min | 5.000 to 5.200 |",
        "| R2 | 0.800 | 0.700 to 0.900 |",
        "| train | 2021-01 | 997 of 1,000 | cdcdcdcdcdcdcdcd |",
        "`compact`, 2 columns: `hour`, `weekday`",
        "| test RMSE with metered distance | 5.100 min | at most 7 | yes |",
        "| distance | 1 to 2 miles | 9 | 6.00 | 5.00 | 0.20 |",
        "`trip_distance` must be the planned distance, or missing",
        "| metered distance | 5.100 |\n| distance planned to ±10 % | 5.200 |\n",
        "| distance planned to ±20 % | 5.400 |\n| no distance | 6.300 |\n",
        "61 of the 997 test trips have no usable distance.\n",
        "opened once, with metered distance",
        "p10 to p90 should cover 80 % of the trips",
        "| all | all | 997 | 81.2 % | 11.5 |",
        "| distance | no distance | 61 | 75.0 % | 14.0 |\n",
        "| distance | all trips, asked with none | 997 | 79.0 % | 13.0 |\n",
        "Once chosen, it was fitted to train and valid.",
        "the months after 2021-02 may differ",
        "    mlflow run . -e register",
    ],
)
@pytest.mark.parametrize("short", [True, False])
def test_a_card_tells(told: str, short: bool) -> None:
    assert told in card.write_card(make_facts(), short=short)


@pytest.mark.parametrize(
    "told",
    [
        "| 2021-03 | simulated:1000:42 | `" + "ab" * 32 + "` | 0 | 3 |",
        "| hour | 07:00 | 10 | 4.00 | 3.00 | 0.10 |",
        "| hour | 07:00 | 10 | 70.0 % | 12.0 |",
        "dropped: zone missing",
    ],
)
def test_only_the_page_tells_of_every_file_and_every_hour(told: str) -> None:
    assert told in card.write_card(make_facts(), short=False)
    assert told not in card.write_card(make_facts(), short=True)


def test_a_failed_check_stands_out_and_so_do_simulated_months_and_uncommitted_code() -> None:
    failed = Check("test R2", "0.1", "at least 0.5", False)
    text = card.write_card(
        make_facts(checks=[failed], is_simulated=True, is_dirty=True), short=True
    )
    assert "| test R2 | 0.1 | at least 0.5 | **no** |" in text
    assert "simulated trips: it knows nothing about New York" in text
    assert "with uncommitted changes" in text
    # a registry cuts a long text off at the end
    assert text.index("## What it must not be used for") < text.index("## Features")


def test_a_column_per_pair_of_zones_is_counted_and_not_listed() -> None:
    text = card.write_card(make_facts(features=[f"PU_DO={n}" for n in range(9_000)]), short=True)
    assert "9,000 columns: " in text
    assert "and 8,940 more" in text
    assert len(text) < 5000


@pytest.mark.parametrize("n", [60, 61])
def test_columns_are_counted_as_more_only_if_they_are(n: int) -> None:
    text = card.write_card(make_facts(features=[f"column_{i}" for i in range(n)]), short=True)
    (line,) = [line for line in text.splitlines() if f"{n} columns" in line]
    assert line.endswith("`column_59`" if n == 60 else "`column_59` and 1 more")


@pytest.mark.parametrize("taxi", TAXIS)
def test_a_card_names_the_limits_of_its_kind_of_trips(taxi: str) -> None:
    lines = card.write_card(make_facts(taxi=taxi), short=True).splitlines()
    limits = {f"- {limit}" for about in TAXIS.values() for limit in about.limits}
    named = [line for line in lines if line in limits]
    assert named == [f"- {limit}" for limit in TAXIS[taxi].limits]


def test_the_limits_of_rides_that_may_be_shared_say_so() -> None:
    for about in TAXIS.values():
        may_be_shared = any(column.role == "is_shared" for column in about.columns)
        assert ("shared with others" in " ".join(about.limits)) is may_be_shared


def test_what_a_registry_cuts_off_is_not_the_command_that_makes_it_again() -> None:
    facts = make_facts(features=[f"a_rather_long_column_{n}" for n in range(300)])
    many = [GroupErrors("distance", f"band {n}", 100, 1.0, 1.0, 0.0) for n in range(100)]
    text = description(facts._replace(groups=many), "[the card](#/runs/1)")
    assert len(text) <= MAX_DESCRIPTION
    assert text.endswith("[the card](#/runs/1).")
    assert f"    {facts.command}\n" in text


def test_a_bar_in_a_name_breaks_no_table() -> None:
    text = card.write_card(
        make_facts(groups=[GroupErrors("a|b", "c", 1, 1.0, 1.0, 0.0)]), short=True
    )
    assert "| a\\|b | c |" in text
