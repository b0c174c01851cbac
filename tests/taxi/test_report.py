import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from taxi import report, report_backtest, report_errors, report_search, simulation
from taxi.backtest import RmseRise
from taxi.bootstrap import Interval
from taxi.breakdown import Breakdown, CalibrationBin, break_down
from taxi.coverage import ALL_TRIPS, ALL_WITHOUT_DISTANCE
from taxi.evaluation import GroupErrors, describe_feature, errors_by_group
from taxi.features import FEATURES
from taxi.groups import NO_DISTANCE
from taxi.page import Chart, Section, format_cell, render_page, table
from taxi.report import ErrorFacts, ReportFacts, StepFacts
from taxi.style import format_short_count
from taxi.words import are_numbers, format_distance_band, format_group, percent, weekday_of
from tests.conftest import random_trips

HOSTILE = "</script><script>alert('it')</script><img src=https://evil.example/x.png>"
ROOT = Path(report.__file__).parent.parent
DRAWING = (ROOT / "steps/common/report.js").read_text()
TRIPS = random_trips(2_000, seed=1)
PREDICTED = TRIPS.trip_minutes + np.random.default_rng(2).normal(1.0, 4.0, len(TRIPS))
COUNTED = {"split": "train", "month": "2021-01", "uri": HOSTILE, "sha256": "ab" * 32}


def trial(number: int, rmse: str, state: str) -> dict[str, str]:
    about = {"trial": str(number), "state": state, "rmse": rmse, "best_round": "7"}
    return about | {"n_rounds": "9", "max_leaves": "64", "failure": HOSTILE, "run_id": "r"}


def make_report(**changed: object) -> ReportFacts:
    """A report's facts; state only what matters."""
    ordinary: dict[str, object] = {
        "title": f"Minutes of a taxi trip {HOSTILE}",
        "about": f"Run r0, by {HOSTILE}",
        "headline": [f"**{HOSTILE}** won", "Next: `serve it`"],
        "outcome": [
            f"**{HOSTILE}** is ![it](https://evil.example/a.png) [here](https://evil.example)"
        ],
        "steps": [
            [StepFacts("preprocess", "reused", f"3 min ago, {HOSTILE}", 65.0, "r1")],
            [StepFacts("hpo", "run", "for the first time", None, "r2")],
        ],
        "files": [
            COUNTED
            | {"n_bytes": "9", "n_raw": "1000", "n_kept": "990"}
            | {"zone missing": "10", "time missing": "0"}
        ],
        "leaderboard": ["| model | RMSE |", "|---|---|", f"| {HOSTILE} | 5.1 |"],
        "trials": [
            trial(0, "5.2", "finished"),
            trial(1, "5.1", "finished"),
            trial(2, "", "failed"),
        ],
        "curves": [{"trial": n, "round": "0", "rmse": "6.0"} for n in "01"],
        "search_gain": {"gain": 0.1, "noise": 0.02},
        "is_split_by_distance": True,
        "errors": ErrorFacts(
            "the test months 2021-03",
            errors_by_group(TRIPS, PREDICTED),
            break_down(TRIPS, PREDICTED),
        ),
        "city": simulation.simulated_zones(42),
        "coverage": [
            {"kind": kind, "group": name, "n_trips": "9", "coverage": "0.7", "width": "11.5"}
            for kind, name in (("all", "all"), ("hour", "07"), ("distance", "01.0..02.0 miles"))
        ],
        "importance": [{"feature": "way_y", "gain": "2", "shap": "1.5"}],
        "champion": {"": ["model"], "champion before": [HOSTILE], "this model": ["xgboost"]},
        "gate": [{"check": "test R2", "found": "0.1", "wanted": HOSTILE, "passed": "False"}],
        "drift": [
            {"month": "2021-04", report.VERSION: HOSTILE, "measure": "PSI", "of": "hour"}
            | {"value": "0.3", "threshold": "0.25", "drifted": "True"}
        ],
        "rerun": ["    mlflow run . -P taxi=green"],
        "missing": [f"{HOSTILE} is gone"],
    }
    return ReportFacts(**ordinary | changed)


class Parsed(HTMLParser):
    """A page as a browser parses it: its elements, and its text outside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        last, attributes = self.elements[-1] if self.elements else ("", {})
        if last == "script" and "type" in attributes:
            self.data = self.data or data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page() -> Parsed:
    return Parsed(report.write_report(make_report(), style="b {}", scripts=["draw()"]))


def test_a_hostile_name_stays_text_and_nothing_is_fetched(page: Parsed) -> None:
    assert len(page.all("script")) == 2  # the data and the drawing code
    assert not page.all("link") + page.all("iframe")
    assert {a["class"] for a in page.all("img")} == {"printed"}  # only the print version of a chart
    urls = [a[name] for _, a in page.elements for name in ("src", "href", "action") if name in a]
    assert urls
    assert all(url and url.startswith("#") for url in urls)
    (policy,) = (a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    assert page.text.count("alert('it')") >= 8  # all of it is there, as text


@pytest.mark.parametrize(
    "told",
    [
        "1 min 5 s",
        "990 of 1,000 rows",
        "3 trials: 2 finished, 1 failed. The best one is 0.100 min better",
        "trials are scored on the others, but the model is scored on all trips.",
        "Trial 1 is best after 8 rounds.",
        "Trial 1 is best, with 5.100 min.",
        "Errors on the test months 2021-03",
        "On test it covers 70.0 %, and is 11.5 min wide",
        "how far the way goes along the learned map's second axis, miles (1.5 min)",
        "Drifted: 2021-04.",
        "PSI of hour of the pickup",
        "mlflow run . -P taxi=green",
    ],
)
def test_a_report_tells(told: str, page: Parsed) -> None:
    assert told in " ".join(page.text.split())


def test_each_chart_has_a_name_and_its_numbers_and_each_section_a_link(page: Parsed) -> None:
    charts = json.loads(page.data)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    drawn = [a for a in page.all("div") if a.get("class") == "chart"]
    assert [a["id"] for a in drawn] == list(charts)
    assert all(a["role"] == "img" and a["aria-label"] for a in drawn)
    assert len(page.all("figcaption")) == len(page.all("details")) == len(charts) == 12
    regions = [a["aria-label"] for a in page.all("div") if a.get("role") == "region"]
    headings = {a["id"] for a in page.all("h2")}
    assert not headings & {(name or "").lower().replace(" ", "-") for name in regions}
    linked = {a["href"][1:] for a in page.all("a")}
    assert {a["aria-labelledby"] for a in page.all("section")} <= linked <= set(ids)
    assert next(a["tabindex"] for a in page.all("div") if a.get("class") == "scroll") == "0"


def test_each_kind_of_chart_is_one_that_is_drawn(page: Parsed) -> None:
    (kinds,) = re.findall(r"const KINDS = { (.*) }", DRAWING)
    assert {chart["kind"] for chart in json.loads(page.data).values()} == set(kinds.split(", "))
    # and the drawing code uses only fields that a chart has
    assert set(re.findall(r"chart\.(\w+)", DRAWING)) <= set(Chart._fields)


def test_an_axis_of_trials_has_no_halves() -> None:
    assert "every(Number.isInteger)) plot.below[0].ticker.min_interval = 1" in DRAWING


def test_a_legend_stands_above_its_chart_where_it_hides_no_point() -> None:
    assert "plot.remove_layout(one)" in DRAWING
    assert 'plot.add_layout(one, "above")' in DRAWING


def test_on_paper_the_path_of_a_file_is_broken_and_no_number() -> None:
    paper = (ROOT / "steps/common/report.css").read_text().partition("@media print")[2]
    # without a minimum, text that may break anywhere gets as narrow as a letter
    assert re.search(r" td { .*overflow-wrap: anywhere; min-width: 5em }", paper)


def test_what_is_not_there_leaves_no_empty_heading() -> None:
    texts = {"title", "about", "headline"}
    fields = set(ReportFacts._fields) - texts - {"errors", "city", "search_gain", "champion"}
    facts = make_report(
        **{name: [] for name in fields},
        errors=ErrorFacts("the valid months", [], None),
        champion={},
        city=None,
    )
    text = report.write_report(facts, style="", scripts=[])
    assert re.findall('<h2 id="(.*?)"', text) == ["calibration-and-intervals"]
    assert "The model gives no quantiles" in text
    assert json.loads(Parsed(text).data) == {}


def test_what_nothing_was_dropped_for_takes_no_room(page: Parsed) -> None:
    assert "dropped: zone missing" in page.text
    assert "dropped: time missing" not in page.text


def test_a_section_without_parts_is_left_out() -> None:
    text = render_page("it", "", [Section("empty", [])], style="", scripts=[])
    assert "<h2" not in text


def test_each_trip_is_on_one_day_and_in_one_zone() -> None:
    found = break_down(TRIPS, PREDICTED)
    error = PREDICTED - TRIPS.trip_minutes
    for groups in (found.days, found.zones, report_errors.by_weekday(found.days)):
        n = np.array([group.n_trips for group in groups])
        assert n.sum() == len(TRIPS)
        square = n @ np.array([group.rmse**2 for group in groups]) / len(TRIPS)
        assert square == pytest.approx(np.mean(error**2), rel=1e-12)
        bias = n @ np.array([group.bias for group in groups]) / len(TRIPS)
        assert bias == pytest.approx(error.mean(), rel=1e-12)
    assert sum(found.residuals) == sum(one.n_trips for one in found.calibration) == len(TRIPS)
    n, *means = np.array(found.calibration).T
    wanted = pytest.approx([PREDICTED.mean(), TRIPS.trip_minutes.mean()], rel=1e-12)
    assert [n @ mean / len(TRIPS) for mean in means] == wanted
    days = TRIPS.pickup_at.astype("M8[D]").astype(str)
    assert [group.group for group in found.days] == sorted(set(days))
    assert Breakdown.restore(json.loads(json.dumps(found.state()))) == found


def test_a_zone_of_few_trips_is_no_finding() -> None:
    groups = [
        GroupErrors("hour", "01", 3, 90.0, 1.0, 0.0),
        GroupErrors("hour", "02", 300, 5.0, 1.0, 0.0),
    ]
    chart = report_errors.group_chart("hour", groups)
    assert chart.title == "By hour, of those with 30 trips or more: largest error 02:00 (5.00 min)."
    counted = ({"n_trips": "3", "coverage": "0.1"}, {"n_trips": "300", "coverage": "0.8"})
    rows = [{"group": f"0{hour}", "width": "9"} | row for hour, row in enumerate(counted, 1)]
    said = report_errors.interval_chart("hour", rows).title
    assert said == "By hour, of those with 30 trips or more, intervals cover least at 02:00: 80 %."


def test_trips_that_never_have_a_distance_are_not_drawn_by_it() -> None:
    groups = [GroupErrors("distance", NO_DISTANCE, 300, 5.0, 1.0, 0.0)]
    hours = [GroupErrors("hour", f"0{hour}", 150, 5.0 + hour, 1.0, 0.0) for hour in (1, 2)]
    shown = report_errors.error_parts("test", [*hours, *groups], None, None)
    named = [
        ("all", ALL_TRIPS),
        ("hour", "01"),
        ("distance", NO_DISTANCE),
        ("distance", ALL_WITHOUT_DISTANCE),
    ]
    rest = {"n_trips": "300", "coverage": "0.8", "width": "9"}
    coverage = [{"kind": kind, "group": group} | rest for kind, group in named]
    parts = [*shown, *report_errors.interval_parts(coverage)]
    titles = [part.title for part in parts if isinstance(part, Chart)]
    assert [title.partition(":")[0] for title in titles] == [
        "By hour",
        "By hour, intervals cover least at 01",
    ]


def test_a_zone_that_is_on_no_map_is_no_finding_of_the_map() -> None:
    zones = [
        GroupErrors("zone", "0", 300, 90.0, 1.0, 0.0),
        GroupErrors("zone", "4", 300, 5.0, 1.0, 0.0),
    ]
    city = simulation.simulated_zones(42)
    chart = report_errors.zone_chart(city, zones)
    assert chart.title.startswith(
        f"By the zone where a trip begins: largest error from {city.name[4]} "
    )
    assert chart.columns["zone"][0] == "no zone"


def test_a_zone_of_few_trips_has_no_colour_but_its_numbers() -> None:
    zones = [
        GroupErrors("zone", "3", 3, 90.0, 1.0, 0.0),
        GroupErrors("zone", "4", 300, 5.0, 1.0, 0.0),
    ]
    city = simulation.simulated_zones(42)
    chart = report_errors.zone_chart(city, zones)
    assert chart.columns[report_errors.RMSE] == [90.0, 5.0]
    assert {row for row, *_ in chart.shapes} == {-1, 1}
    assert chart.blank == "fewer than 30 trips"
    few = report_errors.zone_chart(city, zones[:1])  # if all zones have few trips, all are coloured
    assert ({row for row, *_ in few.shapes}, few.blank) == ({-1, 0}, "no trips")
    assert "legend_label: chart.blank" in DRAWING


def test_an_error_is_drawn_at_the_middle_of_its_bin() -> None:
    chart = report_errors.residual_chart(break_down(TRIPS, PREDICTED))
    (middles, counts) = chart.columns.values()
    assert (middles[0], middles[14:16], middles[-1]) == ("-29", ["-1", "+1"], "+29")
    error = PREDICTED - TRIPS.trip_minutes
    assert counts[15] == ((error >= 0) & (error < 2)).sum()
    near = 100 * (np.abs(error) < 5).mean()
    assert chart.title == f"{near:.0f} % of the trips are predicted within 5 minutes."


def test_predicted_means_are_held_against_measured_ones_and_the_line_is_as_long() -> None:
    bins = [
        CalibrationBin(9, 5.0, 6.5),
        CalibrationBin(9, 10.0, 9.0),
        CalibrationBin(9, 20.0, 20.25),
    ]
    chart = report_errors.calibration_chart(Breakdown([], [], bins, []))
    said = "Predicted means are within 1.50 min of the measured ones (largest gap at 5 min)."
    assert (chart.title, chart.wanted) == (said, [[0, 0], [20.25, 20.25]])


def test_the_best_trial_is_the_best_of_those_that_were_not_pruned() -> None:
    def title(*trials: dict[str, str]) -> str:
        _, _, chart, *_ = report_search.search_parts(trials, [], {}, is_split_by_distance=False)
        return str(chart.title)

    pruned, finished = trial(0, "5.0", "pruned"), trial(1, "5.1", "finished")
    assert title(pruned, finished) == "Trial 1 is best, with 5.100 min."
    assert title(pruned, trial(2, "", "failed")) == "Trial 0 is best, with 5.000 min."


def test_a_learning_curve_is_that_of_its_trial_the_best_first_and_counted_from_1() -> None:
    points = [("0", "0", 6.0), ("1", "0", 7.0), ("0", "2", 5.2), ("1", "2", 5.1), ("2", "0", 9.0)]
    curves = [{"trial": n, "round": place, "rmse": str(rmse)} for n, place, rmse in points]
    (chart,) = report_search.curve_chart(
        [trial(1, "5.1", "finished"), trial(0, "5.2", "finished")], curves
    )
    drawn = list(zip(*chart.columns.values(), strict=True))
    assert drawn == [(1, 7.0, "1"), (3, 5.1, "1"), (1, 6.0, "0"), (3, 5.2, "0")]
    assert chart.title == "Trial 1 is best after 8 rounds."
    assert report_search.curve_chart([trial(3, "5.0", "finished")], curves) == []


@pytest.mark.parametrize("is_split_by_distance", [True, False])
def test_boosters_of_trips_without_a_distance_are_told_of_where_there_are_some(
    *, is_split_by_distance: bool
) -> None:
    page = report.write_report(
        make_report(is_split_by_distance=is_split_by_distance), style="", scripts=[]
    )
    assert ("have boosters of their own" in page) is is_split_by_distance


def test_shares_are_drawn_in_percent() -> None:
    rows = [
        {"group": "07", "n_trips": "9", "coverage": coverage, "width": "9"}
        for coverage in ("0.7", "0.812")
    ]
    chart = report_errors.interval_chart("hour", rows)
    assert chart.columns["trips within p10 to p90, %"] == [70.0, 81.2]
    assert chart.title == "By hour, intervals cover least at 07:00: 70 %."
    assert chart.wanted == [[0.0, 80.0], [1.0, 80.0]]
    _, aged = report_backtest.ageing_parts([RmseRise(1, 4, Interval(0.02, 0.01, 0.03))])
    assert aged.columns["RMSE above a fresh model's, %"] == [2.0]
    assert aged.columns["95 %"] == ["+1.00 to +3.00"]


def test_numbers_of_a_table_stand_to_the_right_and_names_to_the_left() -> None:
    text = table("it", {"month": ["2021-01"], "n": ["1,000"], "share": ["-0.5 %"], "none": [""]})
    assert text.count('class="number"') == 4  # two headings and two cells
    assert '<th scope="col" class="number">n</th>' in text
    assert [are_numbers(cells) for cells in (["< -99", "", "1"], ["2021-01"], ["ab", "1"], [])] == [
        *(True, False),
        *(False, False),
    ]


def test_paper_gets_light_colours_whatever_the_screen_has() -> None:
    style = (ROOT / "steps/common/report.css").read_text()
    assert re.search(r":root, \.sheet {\n  --paper: #ffffff", style)
    dark = style.partition("(prefers-color-scheme: dark)")[2].partition("}")[0]
    assert ".sheet" not in dark
    assert 'sheet.className = "sheet"' in DRAWING


def test_no_tab_stops_at_a_chart_and_without_scripts_none_leaves_a_gap() -> None:
    assert "view.canvas_view.events_el.tabIndex = -1" in DRAWING
    style = (ROOT / "steps/common/report.css").read_text()
    assert "@media (scripting: none) { .chart { display: none } }" in style


def test_a_long_cell_may_be_broken_and_a_short_one_stays_on_its_line() -> None:
    text = table("it", {"a": ["2021-01", "x" * 25]})
    assert "<td>2021-01</td>" in text
    assert f'<td class="long">{"x" * 25}</td>' in text
    style = (ROOT / "steps/common/report.css").read_text()
    assert ".long { white-space: normal; overflow-wrap: anywhere" in style


def test_every_feature_has_words_of_its_own() -> None:
    words = {name: describe_feature(name) for name in FEATURES if name != "filled_miles"}
    assert len(set(words.values())) == len(words)
    assert [said for said in words.values() if "_" in said or not said or len(said) > 90] == []
    assert describe_feature("PU_DO=74_75") == "PU_DO=74_75"


def test_names_and_numbers_are_written_as_people_read_them() -> None:
    assert format_distance_band("02.0..04.0 miles") == "2 to 4 miles"
    assert format_distance_band(NO_DISTANCE) == NO_DISTANCE
    assert format_group("day", "2021-02-01") == "Mon 2021-02-01"
    assert format_group("weekday", "Monday") == "Monday"
    assert format_group("pickup zone", "busyness 1 (1 zone)") == "busiest (1 zone)"
    assert format_group("pickup zone", "busyness 5 (9 zones)") == "quietest (9 zones)"
    assert weekday_of("2021-02-01") == "Monday"
    counts = (9_999, 10_000, 999_499, 999_500, 3_400_000)
    assert [format_short_count(n) for n in counts] == ["9,999", "10k", "999k", "1M", "3.4M"]
    assert [percent(share, sign="+") for share in (0.047, -1e-9)] == ["+4.7 %", "+0.0 %"]
    assert [percent(share, 0) for share in (0.815, 1.445)] == ["82 %", "144 %"]  # rounded only once
    assert [format_cell(value) for value in (1.23456, 12_345, "it")] == ["1.235", "12,345", "it"]
    assert [report.format_duration(s) for s in (8.04, 185, 3720)] == [
        "8 s",
        "3 min 5 s",
        "1 h 2 min",
    ]


def test_a_report_is_written_without_what_trains_models() -> None:
    script = "import sys, taxi.report; print({'xgboost', 'sklearn', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
