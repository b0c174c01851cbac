"""How a plan estimates what steps will need from what they needed before."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.common.parameters import MainParameters
from steps.main import needs
from steps.main.needs import (
    Need,
    PastRun,
    count_trips,
    estimate,
    estimate_work,
    extrapolate,
    warn_of_memory,
)
from storage.data import months
from storage.data.cache import cache_folder
from storage.data.row_counts import count_month
from storage.data.sources import MonthLocation
from storage.tracking import cost

TRIPS = {"train": 3_000_000, "valid": 2_000_000}


@pytest.mark.parametrize(
    ("known", "value"),
    [
        ([(10, 2.0)], 15.5),  # a single size: in proportion, except for the fixed part
        ([(10, 2.0), (10, 9.0)], 15.5),  # the newest of that size
        ([(10, 0.3)], 0.3),
        ([(10, 2.0), (60, 7.0)], 11.0),  # along a line, with its fixed part
        ([(10, 2.0), (60, 1.0)], 2.0),  # never less for more
        ([(200, 30.0), (300, 45.0)], 15.0),
        ([(200, 1.0), (300, 45.0)], 0.0),
    ],
)
def test_a_need_follows_the_line_through_what_was_needed_before(
    known: list[tuple[float, float]], value: float
) -> None:
    assert extrapolate(100, known, fixed=0.5) == pytest.approx(value)


def test_the_time_of_a_search_grows_with_its_trials_and_the_trips_that_they_see() -> None:
    assert estimate_work("baseline", TRIPS, 1_000_000, 50) == 5_000_000
    assert estimate_work("hpo", TRIPS, 0, 50) == 50 * 3_000_000
    assert estimate_work("hpo", TRIPS, 1_000_000, 50) == 50 * 1_000_000
    assert estimate_work("hpo", {"train": 70_000, "valid": 60_000}, 1_000_000, 50) == 50 * 70_000


def test_what_no_run_tells_is_not_made_up() -> None:
    past = [PastRun(130_000, 20 * 70_000, 2.0, 0.6)]
    assert estimate(70_000, 70_000, []) is None
    assert estimate(5_000_000, 50 * 3_000_000, past) is None  # the past runs are too small
    found = estimate(260_000, 10 * 140_000, past)
    assert found is not None
    assert (found.minutes, found.gib) == (pytest.approx(2.0), pytest.approx(0.85))
    assert found.based_on == [130_000]
    few = PastRun(3_000, 20 * 2_000, 1.0, 0.4)
    assert estimate(260_000, 10 * 140_000, [few, *past]) == found


@pytest.mark.parametrize(
    ("logged", "tells"),
    [
        ({}, True),
        ({"search_space": "lossguide", "search_rows": "1000000"}, True),
        ({"search_space": "course_best"}, False),
        ({"search_rows": "0"}, False),
        ({"features": "compact"}, False),
        ({"scheduler": "''"}, True),  # this is how mlflow run logs an empty text
        ({"scheduler": "tcp://a:8786"}, False),
        ({"device": "cuda"}, False),
        ({"models": "mean"}, False),
        ({"features": "full", "config.features": "compact"}, False),  # its file's value counts
        ({"features": "compact", "config.features": "full"}, True),
    ],
)
def test_a_run_that_did_other_work_does_not_tell(logged: dict[str, str], tells: bool) -> None:
    metrics = {"system/wall_seconds": 60.0, "n_trials_finished": 4.0}
    run = SimpleNamespace(data=SimpleNamespace(metrics=metrics, params=logged))
    past = needs.to_past_run("hpo", run, {"train": 70, "valid": 60}, MainParameters())  # type: ignore[arg-type]
    assert (past is not None) == tells


def test_a_search_has_worked_on_the_trials_that_it_made_itself() -> None:
    ended = {"n_trials_finished": 4.0, "n_trials_pruned": 2.0, "n_trials_failed": 9.0}
    metrics = {"system/wall_seconds": 90.0, "system/peak_memory_megabytes": 1536.0, **ended}
    data = SimpleNamespace(metrics=metrics, params={})
    trips, params = {"train": 70, "valid": 60}, MainParameters()

    def past() -> PastRun | None:
        return needs.to_past_run("hpo", SimpleNamespace(data=data), trips, params)  # type: ignore[arg-type]

    assert past() == PastRun(n_trips=130, work=6 * 70, minutes=1.5, gib=1.5)
    metrics["n_trials_recorded"] = 5.0
    assert past() == PastRun(n_trips=130, work=70, minutes=1.5, gib=1.5)
    metrics["n_trials_recorded"] = 6.0
    assert past() is None


def test_a_plan_tells_what_each_step_needs_and_what_this_machine_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    past = {"hpo": [PastRun(5_000_000, 50 * 1_000_000, minutes=90.0, gib=40.0)]}
    monkeypatch.setattr(needs, "read_past_runs", lambda _: past)
    monkeypatch.setattr(cost, "machine_megabytes", lambda: 8 * 1024)
    told = list(needs.describe_needs(MainParameters(), TRIPS, 25, ["baseline", "hpo"]))
    assert [line.partition(" estimated from ")[0] for line in told] == [
        "trips: train 3,000,000, valid 2,000,000",
        "needs: hpo at most 45 min and 40.0 GiB,",
        "needs: no estimate for baseline: no finished run did the same on at least 166,666 trips "
        "here",
        "warning: hpo may need 40.0 GiB, and this machine has 8.0. Take fewer months, a larger "
        "machine, or workers (scheduler).",
    ]


@pytest.mark.parametrize(("has", "n_lines"), [(4.0, 1), (8.0, 0)])
def test_one_line_warns_where_this_machine_has_less_memory(
    monkeypatch: pytest.MonkeyPatch, has: float, n_lines: int
) -> None:
    monkeypatch.setattr(cost, "machine_megabytes", lambda: has * 1024)
    told = {"baseline": Need(1.0, 4.5, [1]), "hpo": Need(9.0, 5.2, [1])}
    lines = list(warn_of_memory(told))
    assert len(lines) == n_lines
    for line in lines:
        assert line.startswith("warning: hpo may need 5.2 GiB, and this machine has 4.0. ")
    assert list(warn_of_memory({})) == []


def test_a_container_has_no_more_memory_than_it_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(cost, "CONTAINER_LIMIT", limit)
    whole = cost.machine_megabytes()
    limit.write_text("max\n")
    assert cost.machine_megabytes() == whole > 512
    limit.write_text(f"{512 << 20}\n")
    assert cost.machine_megabytes() == 512


@pytest.mark.parametrize(
    ("need", "said"),
    [
        (
            Need(9.94, 0.52, [7_000]),
            "at most 9.9 min and 0.5 GiB, estimated from runs on 7,000 trips",
        ),
        (
            Need(1234.4, 12.0, [7_000, 8_000, 90_000]),
            "about 1,234 min and 12.0 GiB, estimated from runs on 7,000 to 90,000 trips",
        ),
    ],
)
def test_a_need_is_written_with_what_tells_it(need: Need, said: str) -> None:
    assert needs.format_need(need) == said


# --- trips that have not been read yet


def test_footers_tell_the_trips_of_a_month_in_a_file_or_in_parts_or_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_CACHE", str(tmp_path / "cache"))
    name, trips = "green_tripdata_2021-0{}.parquet", pa.table({"fare": [1.0, 2.0, 3.0]})
    pq.write_table(trips, tmp_path / name.format(1))
    (tmp_path / "green_tripdata_2021-02").mkdir()
    for part in range(2):
        pq.write_table(trips, tmp_path / "green_tripdata_2021-02" / f"part-{part}.parquet")
    here = [months.locate(str(tmp_path), taxi="green", month=f"2021-0{n}") for n in (1, 2)]
    assert [count_month(month) for month in here] == [3, 6]
    kept = cache_folder("https://example.org/trips") / name.format(3)
    kept.parent.mkdir(parents=True)
    pq.write_table(trips, kept)
    uri = f"https://example.org/trips/{kept.name}"
    there = MonthLocation("2021-03", uri, False, 9, path=kept)
    assert count_month(there) == 3
    splits = {"train": ["2021-01", "2021-02"], "valid": ["2021-03"]}
    assert count_trips({}, splits, [*here, there]) == {"train": 9, "valid": 3}
    kept.write_bytes(b"PAR1 no parquet PAR1")
    assert count_month(there) is None
    assert count_trips({}, splits, [*here, there]) == {}
    assert count_trips({"n_trips_train": 5.0}, {}, []) == {"train": 5}


@pytest.mark.parametrize(("name", "must_come"), [("month.csv", False), ("month.parquet", True)])
def test_a_month_that_does_not_tell_or_is_not_here_is_not_counted(
    tmp_path: Path, name: str, must_come: bool
) -> None:
    (tmp_path / name).write_text("fare\n1.0\n")
    path = None if must_come else tmp_path / name
    uri = (tmp_path / name).as_uri()
    assert count_month(MonthLocation("2021-01", uri, must_come, 9, path=path)) is None


def test_where_nobody_knows_the_trips_nothing_is_said_of_needs() -> None:
    (line,) = needs.describe_needs(MainParameters(), {}, 50, ["hpo"])
    assert line == "trips: unknown until the months are here, and so are time and memory"
