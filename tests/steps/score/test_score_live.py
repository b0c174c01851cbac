"""Months scored with a live level: what is written, where the state goes, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import StorageError
from storage.data.objects import read_object
from storage.tracking import models
from taxi import live_file
from taxi.simulation import month_batches
from tests.steps.lab import Lab
from tests.steps.score.conftest import SIMULATED, WIDE, read_scored

FEED = ("--live=feed", *WIDE)
APRIL, MAY = "2021-04", "2021-05"


def given(champion: str, *months: str) -> tuple[str, ...]:
    return (SIMULATED, f"--months={','.join(months)}", champion, *FEED)


def column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def test_both_predictions_and_both_errors_are_written(lab: Lab, champion: str) -> None:
    off, _ = lab.run("score", SIMULATED, f"--months={APRIL}", champion, *WIDE)
    run, lines = lab.run("score", *given(champion, APRIL))
    assert "without the live level)" in lines[0]
    rows, plain = read_scored(run, APRIL), read_scored(off, APRIL)
    assert "prediction_base" not in plain.column_names
    assert np.array_equal(column(rows, "prediction_base"), column(plain, "prediction"))
    assert not np.array_equal(column(rows, "prediction"), column(plain, "prediction"))
    assert (run.data.tags["live"], off.data.tags["live"]) == ("feed, 15 min late", "off")
    metrics = run.data.metrics
    assert metrics["rmse_base"] == off.data.metrics["rmse"] == off.data.metrics["rmse_base"]
    assert metrics["rmse"] != metrics["rmse_base"]
    told = f"{metrics['rmse']:.3f} min with the live level, {metrics['rmse_base']:.3f} without"
    page = run.data.tags["mlflow.note.content"]
    assert page.startswith(f"**RMSE {told}** on {APRIL} (")
    assert "| month | RMSE, min | without the live level | rise of RMSE |" in page
    assert " for the model alone |" in page
    assert "live level" not in off.data.tags["mlflow.note.content"]
    assert metrics["n_live"] == metrics["n_rows"] == 2_000
    assert float(lab.table(run, "by_day.csv")[0]["rmse_base"]) > 0


def test_a_file_in_any_order_says_the_same_of_each_row(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    (raw,) = month_batches(APRIL, 2_000, 42)
    order = np.random.default_rng(1).permutation(2_000)
    pq.write_table(
        pa.Table.from_batches([raw.take(order)]), tmp_path / f"green_tripdata_{APRIL}.parquet"
    )
    run, _ = lab.run("score", *given(champion, APRIL))
    shuffled, _ = lab.run("score", *given(champion, APRIL), f"--source={tmp_path}")
    wanted = column(read_scored(run, APRIL), "prediction")[order]
    assert np.array_equal(column(read_scored(shuffled, APRIL), "prediction"), wanted)


def test_what_happens_later_leaves_earlier_predictions_as_they_are(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    table = pa.Table.from_batches(month_batches(APRIL, 2_000, 42))
    noon = np.datetime64("2021-04-20T12:00")
    dropoff = column(table, "lpep_dropoff_datetime")
    later = np.where(dropoff >= noon, dropoff + np.timedelta64(5, "m"), dropoff)
    place = table.column_names.index("lpep_dropoff_datetime")
    table = table.set_column(place, "lpep_dropoff_datetime", pa.array(later))
    pq.write_table(table, tmp_path / f"green_tripdata_{APRIL}.parquet")
    run, _ = lab.run("score", *given(champion, APRIL))
    other, _ = lab.run("score", *given(champion, APRIL), f"--source={tmp_path}")
    rows, changed = read_scored(run, APRIL), read_scored(other, APRIL)
    early = column(rows, "lpep_pickup_datetime") < noon + np.timedelta64(15, "m")
    one, two = column(rows, "prediction"), column(changed, "prediction")
    assert one[early].tobytes() == two[early].tobytes()
    assert not np.array_equal(one[~early], two[~early])


def test_months_are_followed_in_the_order_of_time(lab: Lab, champion: str) -> None:
    run, lines = lab.run("score", *given(champion, MAY, APRIL))
    assert [line.partition(":")[0] for line in lines[:2]] == [APRIL, MAY]
    alone, _ = lab.run("score", *given(champion, MAY))
    one, two = (column(read_scored(r, MAY), "prediction") for r in (run, alone))
    assert not np.array_equal(one, two)  # May learns from April


def test_the_state_goes_from_run_to_run_and_to_servers(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    uri = f"{tmp_path}/deep/live.json"
    state = f"--live_state={uri}"
    lab.run("score", *given(champion, APRIL), state)
    content = read_object(uri)
    assert content is not None
    sha256 = models.digest(models.load("models:/scored/1"), "")
    kept = live_file.read_state(content, taxi="green", model_sha256=sha256)
    assert np.datetime64("2021-04-30T23:00") < kept.clock <= np.datetime64("2021-05-01T00:00")
    carried, _ = lab.run("score", *given(champion, MAY), state)
    alone, _ = lab.run("score", *given(champion, MAY))
    one, two = (column(read_scored(r, MAY), "prediction") for r in (carried, alone))
    assert not np.array_equal(one, two)
    assert [path.name for path in Path(uri).parent.iterdir()] == ["live.json"]


def test_a_month_scored_again_from_its_own_state_says_that_no_trip_had_a_level(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    state = f"--live_state={tmp_path}/live.json"
    said = "{} of 2,000 trips, those after the state's clock and before the month's end, had a "
    said += "level; without drop-offs "
    _, lines = lab.run("score", *given(champion, APRIL), state)
    assert said.format("2,000") in lines[0]
    run, lines = lab.run("score", *given(champion, APRIL), state, "--feed_delay=600")
    assert said.format("0") in lines[0]
    assert "without the live level" not in lines[0]
    assert run.data.metrics["rmse"] == run.data.metrics["rmse_base"]


def test_the_page_of_a_month_that_has_grown_says_how_many_trips_had_a_level(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    (raw,) = month_batches(APRIL, 2_000, 42)
    ended = raw.column("lpep_dropoff_datetime").to_numpy() < np.datetime64("2021-04-20")
    job = (f"--source={tmp_path}", f"--live_state={tmp_path}/live.json")
    for grown in (raw.filter(pa.array(ended)), raw):
        table = pa.Table.from_batches([grown])
        pq.write_table(table, tmp_path / f"green_tripdata_{APRIL}.parquet")
        run, _ = lab.run("score", *given(champion, APRIL), *job)
    n_live = int(run.data.metrics["n_live"])
    assert 0 < n_live < 2_000
    said = f" min with the live level, which {n_live:,} trips had, "
    assert said in run.data.tags["mlflow.note.content"].splitlines()[0]


@pytest.mark.parametrize("trips", ["no file", "none that counts"])
@pytest.mark.parametrize("now", ["2021-04-30T23:30", "2021-05-01T00:05", "2021-05-01T09:00"])
def test_a_job_at_the_very_start_of_a_month_goes_on_with_the_state_that_is_there(
    lab: Lab,
    champion: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trips: str,
    now: str,
) -> None:
    state = f"--live_state={tmp_path}/live.json"
    lab.run("score", *given(champion, APRIL), state)
    before = Path(tmp_path, "live.json").read_bytes()
    if trips != "no file":
        table = pa.Table.from_batches(month_batches(APRIL, 10, 1))
        pq.write_table(table, tmp_path / f"green_tripdata_{MAY}.parquet")
    job = (*given(champion, MAY), state, f"--source={tmp_path}", "--fail_on_drift=true")
    monkeypatch.setattr(live_file, "new_york_now", lambda: np.datetime64(now, "us"))
    run, (line,) = lab.run("score", *job)
    assert line.startswith("2021-05: it has just begun and has no trips yet; the live ")
    assert line in run.data.tags["mlflow.note.content"]
    assert Path(tmp_path, "live.json").read_bytes() == before
    monkeypatch.setattr(live_file, "new_york_now", lambda: np.datetime64("2021-05-03", "us"))
    _, (line,) = lab.run("score", *job, code=2)
    assert "No green trips in" in line or "none of its 10 rows is a trip of 2021-05" in line
    assert Path(tmp_path, "live.json").read_bytes() == before


def test_a_month_that_has_just_begun_is_refused_where_there_is_no_state_to_go_on_with(
    lab: Lab, champion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_file, "new_york_now", lambda: np.datetime64("2021-05-01T00:05", "us"))
    _, (line,) = lab.run("score", *given(champion, MAY), f"--source={tmp_path}", code=2)
    assert "No green trips in" in line


def test_a_state_of_another_model_begins_anew_and_says_so(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    uri = f"{tmp_path}/live.json"
    run, _ = lab.run("score", *given(champion, APRIL), f"--live_state={uri}")
    about = json.loads(Path(uri).read_bytes()) | {"model_sha256": "ab" * 32}
    Path(uri).write_text(json.dumps(about))
    again, lines = lab.run("score", *given(champion, APRIL), f"--live_state={uri}")
    assert lines[0] == (
        f"{uri} is started anew: it is of another model, abababababab. Once it is written, a "
        "server with that other model predicts without a level."
    )
    assert read_scored(again, APRIL).equals(read_scored(run, APRIL))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"taxi": "yellow"}, "it is of yellow trips, not of green ones. Pass another live_state."),
        ({"version": 9}, "it is of version 9"),
        ({"clock": "2021-06-01T00:00"}, "has counted trips until 2021-06-01T00:00, and 2021-04 "),
        ({"clock": "2999-01-01T00:00"}, "it is from the future: 2999-01-01T00:00"),
        (None, "it is not whole JSON of a live state"),
    ],
    ids=["another taxi", "another version", "a later month", "the future", "cut"],
)
def test_a_state_that_cannot_be_gone_on_from_is_refused_and_left_as_it_is(
    lab: Lab, champion: str, tmp_path: Path, change: dict[str, object] | None, said: str
) -> None:
    uri = f"{tmp_path}/live.json"
    lab.run("score", *given(champion, APRIL), f"--live_state={uri}")
    content = Path(uri).read_text()
    spoilt = json.dumps(json.loads(content) | change) if change else content[:-40]
    Path(uri).write_text(spoilt)
    _, (line,) = lab.run("score", *given(champion, APRIL), f"--live_state={uri}", code=2)
    assert said in line
    assert uri in line
    assert Path(uri).read_text() == spoilt


def test_who_asks_for_a_month_that_the_state_is_beyond_is_told_how_it_can_be_scored(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    state = f"--live_state={tmp_path}/live.json"
    lab.run("score", *given(champion, MAY), state)
    _, (line,) = lab.run("score", *given(champion, APRIL), state, code=2)
    assert "2021-04 ends before. To score what is over, leave live_state out, and a level" in line
    _, (line,) = lab.run("score", *given(champion, APRIL, MAY), state, code=2)
    assert "2021-04 ends before. Leave 2021-04 out. To score what is over, leave live_state" in line
    lab.run("score", *given(champion, APRIL))


def test_a_run_that_fails_leaves_the_state_as_it_was(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    uri = f"{tmp_path}/live.json"
    lab.run("score", *given(champion, APRIL), f"--live_state={uri}")
    before = Path(uri).read_bytes()
    pq.write_table(
        pa.Table.from_batches(month_batches(MAY, 10, 1)).slice(0, 0),
        tmp_path / f"green_tripdata_{MAY}.parquet",
    )
    arguments = (*given(champion, MAY), f"--source={tmp_path}", f"--live_state={uri}")
    lab.run("score", *arguments, code=2)
    assert Path(uri).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--live=sometimes"], "Unknown live 'sometimes'. Choose from ['off', 'nightly', 'feed']."),
        (["--live=off", "--live_state=x"], "live_state has no effect with live=off"),
        (["--scheduler=tcp://127.0.0.1:9"], "live=feed follows the trips in the order of time"),
        (["--feed_delay=-1"], "must be a number of at least 0"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_any_work(
    lab: Lab, champion: str, arguments: list[str], said: str
) -> None:
    _, (line,) = lab.run("score", *given(champion, APRIL), *arguments, code=2)
    assert said in line


def test_a_state_that_cannot_be_written_is_refused_before_any_work(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "live.json", tmp_path):
        _, (line,) = lab.run("score", *given(champion, APRIL), f"--live_state={path}", code=2)
        assert f"Cannot write {path}: " in line


def test_a_store_elsewhere_that_lets_nobody_write_the_state_is_told_before_any_month_is_scored(
    lab: Lab, champion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.pipe_file", refused)
    uri = "memory://nowhere/live.json"
    run, lines = lab.run("score", *given(champion, APRIL), f"--live_state={uri}", code=2)
    assert lines == [
        f"score: Cannot write {uri}: The specified bucket does not exist. Check the address and "
        "your access."
    ]
    assert "rmse" not in run.data.metrics


def test_a_run_that_failed_before_its_first_trip_leaves_a_state_elsewhere_that_counts_none(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    state = "--live_state=memory://states/live.json"
    nowhere = f"--source={tmp_path}"
    lab.run("score", *given(champion, MAY), nowhere, state, code=2)
    first = read_object("memory://states/live.json")
    assert first is not None
    assert json.loads(first)["clock"] == "1970-01-01T00:00"
    run, lines = lab.run("score", *given(champion, APRIL), state)
    alone, said = lab.run("score", *given(champion, APRIL))
    assert lines == said
    assert read_scored(run, APRIL).equals(read_scored(alone, APRIL))
    kept = read_object("memory://states/live.json")
    lab.run("score", *given(champion, MAY), nowhere, state, code=2)
    assert read_object("memory://states/live.json") == kept != first


def test_a_state_that_can_no_longer_be_written_at_the_end_costs_no_number(
    lab: Lab, champion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("Cannot write it: no space left")

    monkeypatch.setattr("steps.score.feed.write_object", full)
    state = f"--live_state={tmp_path}/live.json"
    run, lines = lab.run("score", *given(champion, APRIL), state, code=2)
    assert "no space left" in lines[-1]
    assert run.data.metrics["rmse"] > 0
