"""The results of a backtest: intervals, ageing, the answer, the comparison of two recipes."""

import numpy as np
import pytest

from taxi import TripError, backtest
from taxi.backtest import CHOSEN, DayErrors, MonthErrors, RmseRise
from taxi.backtest_picture import draw_backtest
from taxi.bootstrap import Interval
from taxi.report_backtest import ageing_parts, write_backtest


def make_errors(month: str, rmse: float, age: int = 0, **other: object) -> MonthErrors:
    interval = Interval(rmse, rmse - 0.1, rmse + 0.1)
    row = MonthErrors("2021-01", month, age, CHOSEN, 900, interval, Interval(0.1, 0.0, 0.2), "run")
    return row._replace(**other)


def make_rise(age: int, value: float, low: float, high: float) -> RmseRise:
    return RmseRise(age, 4, Interval(value, low, high))


def measure(days: list[DayErrors], month: str = "2021-04") -> MonthErrors:
    where = {"fold": "2021-03", "month": month, "age": 1, "model": CHOSEN, "run_id": "run"}
    return backtest.measure_month(days, **where, seed=42)


def test_a_month_without_a_day_is_no_month_to_judge_by() -> None:
    with pytest.raises(TripError, match="No trip of 2021-04 says how long it took"):
        measure([DayErrors("2021-05-01", 9, 5.0, 1.0)])


def test_a_month_is_the_sum_of_its_own_days_as_of_its_trips() -> None:
    rng = np.random.default_rng(1)
    errors = [rng.normal(1, 5, n) for n in (40, 200, 10)]
    days = [
        DayErrors(f"2021-04-0{day}", len(e), float(np.sqrt(np.mean(e**2))), float(e.mean()))
        for day, e in enumerate(errors, 1)
    ]
    found, all_of_them = (
        measure([*days, DayErrors("2021-05-01", 9, 99, 99)]),
        np.concatenate(errors),
    )
    assert found.n_trips == 250
    assert found.rmse.value == pytest.approx(np.sqrt(np.mean(all_of_them**2)))
    assert found.bias.value == pytest.approx(all_of_them.mean())
    assert found.rmse.low < found.rmse.value < found.rmse.high
    assert found.bias.low < found.bias.value < found.bias.high
    assert measure(days) == found  # the same seed draws the same days


def test_the_interval_holds_the_rmse_of_more_days_about_as_often_as_it_says() -> None:
    """Days vary more than their trips explain: intervals from trips would hold far less often."""
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        squares = rng.gamma(8, 25 / 8, 30)  # mean square of each day; its true mean is 25
        days = [DayErrors(f"2021-04-{d:02d}", 500, v**0.5, 0.0) for d, v in enumerate(squares, 1)]
        low, high = measure(days).rmse[1:]
        held += low <= 5 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_a_row_is_read_as_it_was_written() -> None:
    row = make_errors("2021-03", 5.25, 2)
    assert MonthErrors.read({name: str(value) for name, value in row.row().items()}) == row


def test_ageing_is_measured_against_fresh_models_on_the_same_months() -> None:
    """A difficult month must not count as ageing, nor a model beside the chosen one as fresh."""
    rows = [
        *(make_errors("2021-01", 5), make_errors("2021-02", 10), make_errors("2021-03", 20)),
        *(make_errors("2021-02", 11, 1), make_errors("2021-03", 26, 2)),
        make_errors("2021-03", 22.2, 1),
        *(make_errors(month, 1, model="mean") for month in ("2021-02", "2021-03")),
        make_errors("2021-04", 50, 3),  # where no fresh model was judged
    ]
    rows += [make_errors("2021-05", 0), make_errors("2021-05", 1, 1)]  # no share of no error
    first, second = backtest.measure_ageing(rows)
    assert (first.age, first.n_months, first.share.value) == (1, 2, pytest.approx(0.105))
    # Student's quantile with one degree of freedom is 12.706
    assert first.share.high - first.share.value == pytest.approx(12.706 * 0.005, rel=1e-3)
    assert (second.age, second.n_months, second.share.value) == (2, 1, pytest.approx(0.3))
    assert second.share.low == -np.inf


@pytest.mark.parametrize(
    ("rises", "said"),
    [
        (
            [make_rise(1, 0.01, -0.01, 0.03), make_rise(2, 0.04, 0.02, 0.06)],
            "Retrain every 2 months: after 2 months the error is 4.0 % above a fresh model's (95 % "
            "interval +2.0 to +6.0).",
        ),
        ([make_rise(1, 0.03, 0.01, 0.05)], "Retrain every 1 month: after 1 month the error is 3.0"),
        (
            [make_rise(1, 0.01, -0.01, 0.03), make_rise(2, 0.02, -0.01, 0.05)],
            "No age up to 2 months is significantly worse than a fresh model: after 2 months the "
            "error is 2.0 %",
        ),
        ([make_rise(3, -0.01, -0.03, 0.01)], "after 3 months the error is 1.0 % below a fresh"),
        (
            [RmseRise(1, 1, Interval(0.1, -np.inf, np.inf))],
            "error is 10.0 % above a fresh model's (a single month)",
        ),
        ([], "RMSE is 5.500 min over 2 months; no model was followed beyond its own month."),
    ],
)
def test_the_sentence_names_the_first_age_that_is_significant(
    rises: list[RmseRise], said: str
) -> None:
    rows = [
        make_errors("2021-06", 5.0),
        make_errors("2021-07", 6.0),
        make_errors("2021-07", 9.0, 1),
    ]
    assert said in backtest.advise_retraining(rises, rows)


def test_two_recipes_are_compared_by_pairs_of_months() -> None:
    """Months differ by minutes and the recipes by tenths, which only pairing can show."""
    levels = {"2021-01": 5.0, "2021-02": 9.0, "2021-03": 7.0}
    rows = [make_errors(month, level) for month, level in levels.items()]
    others = [
        make_errors(m, level + d)
        for (m, level), d in zip(levels.items(), (0.2, 0.3, 0.25), strict=True)
    ]
    found = backtest.compare_recipes([*rows, make_errors("2022-01", 1)], others)
    assert found is not None
    assert (found.n_months, found.minutes.value) == (3, pytest.approx(-0.25))
    assert found.minutes.high < 0
    assert "This recipe is better than that of run 1a2b: RMSE -0.250 min" in (
        backtest.describe_difference(found, "that of run 1a2b")
    )
    other_trips = [make_errors("2021-01", 5, n_trips=901)]
    assert backtest.compare_recipes(rows, other_trips) is None
    assert backtest.compare_recipes(rows, [make_errors("2020-01", 5)]) is None


@pytest.mark.parametrize("rises", [[], [make_rise(1, 0.02, 0.01, 0.03)]])
def test_the_picture_shows_every_month_and_age(rises: list[RmseRise]) -> None:
    rows = [make_errors(month, 5) for month in ("2021-01", "2021-02")]
    months, bias, ageing = draw_backtest(rows, rises, "Retrain.").axes
    assert [len(line.get_xdata()) for line in months.lines] == [2]
    assert len(bias.containers) == 1
    assert len(ageing.get_xticks()) == len(rises)


def test_the_report_has_the_answer_first_and_every_row() -> None:
    rows = [
        *(make_errors(month, rmse) for month, rmse in (("2021-01", 5.0), ("2021-02", 6.0))),
        *(make_errors(month, 11, model="mean") for month in ("2021-01", "2021-02")),
        make_errors("2021-02", 6.6, 1),
    ]
    parts = {"rerun": ["again"], "missing": [], "style": "", "scripts": []}
    rises = backtest.measure_ageing(rows)
    text = write_backtest("Green", "Run <1>.", ["Retrain <now>.", "Better."], rows, rises, **parts)
    about = '<p class="about">Run &lt;1&gt;.</p>'
    assert f'<p class="verdict">Retrain &lt;now&gt;.</p>{about}<p>Better.</p>' in text
    assert "2021-02 was the hardest month: RMSE 6.000 min." in text
    assert "+10.0 % at an age of 1 month, measured on 1 month." in text
    assert '"ends":[[4.9,5.1],[5.9,6.1]]' in text  # the interval of each month
    assert text.count("naive (mean)") >= 3  # its column, and a row for each month
    assert "What ageing costs" not in write_backtest("Green", "", ["None."], rows, [], **parts)


def test_what_rounds_to_nothing_has_no_side() -> None:
    said = backtest.advise_retraining([make_rise(2, -0.0004, -0.18, 0.18)], [])
    assert "after 2 months the error is as large as a fresh model's (95 % interval -18.0 to" in said
    _, chart = ageing_parts([make_rise(2, -0.0004, -0.18, 0.18)])
    assert chart.title.startswith("+0.0 % at an age of 2 months")
    assert chart.ends == [[-18.0, 18.0]]
    _, once = ageing_parts([make_rise(1, 0.1, -np.inf, np.inf)])
    assert once.ends == ()  # JSON has no infinity
