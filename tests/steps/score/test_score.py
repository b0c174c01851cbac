"""Months scored in bulk: what is written, what is told of drift, and what is refused."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from steps.common.months import find_month
from steps.common.results import read_scoring
from steps.common.served import load_served
from steps.pipelines import nested
from steps.score.record import city_of_model, drift_cells, say_moved
from storage.checkout import ROOT
from storage.data.months import MonthFile
from storage.tracking import models
from taxi.drift import FEATURES, DriftMeasure
from taxi.model import input_columns, write_frame
from taxi.simulation import month_batches, simulated_zones
from taxi.words import measured_words
from tests.clusters import dask_cluster
from tests.conftest import simulated_trips
from tests.entry import entry, parsed
from tests.logged import log_model
from tests.steps.lab import Lab
from tests.steps.score.conftest import read_scored
from tests.stores import Store

SIMULATED = "--source=simulated:2000"
APRIL = "green_tripdata_2021-04.parquet"
WIDE = ("--max_psi=9", "--max_unseen=1", "--max_rmse_rise=9")
NARROW = ("--max_psi=0",)


# --- what is written


def test_every_row_of_every_month_is_written_with_what_its_model_says(
    lab: Lab, champion: str
) -> None:
    run, lines = lab.run("score", SIMULATED, "--months=2021-04,2021-05", champion, *WIDE)
    assert lines[0].startswith("2021-04: predicted 2,000 of 2,000 trips, rmse ")
    (raw,) = month_batches("2021-05", 2_000, 42)
    rows = read_scored(run, "2021-05")
    for name in ("PULocationID", "DOLocationID", "trip_distance", "lpep_pickup_datetime"):
        assert rows[name].to_pylist() == raw.column(name).to_pylist()
    assert set(rows["model"].to_pylist()) == {"models:/scored/1"}
    frame = raw.select(list(input_columns("green"))).to_pandas()
    wanted = models.load("models:/scored/1").predict(frame)
    assert np.array_equal(rows["prediction"].to_numpy(), wanted)
    assert run.data.tags["scored_by"] == "models:/scored/1"
    params = parsed("score", SIMULATED, "--months=2021-04..2021-05", champion, *WIDE)
    assert nested.find_scoring(params).run.info.run_id == run.info.run_id
    other = parsed("score", SIMULATED, "--months=2021-05,2021-04", champion, *WIDE)
    assert nested.find_scoring(other).run is None
    days = read_scoring(run).days
    assert (days[0].day, days[-1].day) == ("2021-04-01", "2021-05-31")


def test_quantiles_that_are_asked_for_are_columns_of_the_predictions(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    (raw,) = month_batches("2021-04", 2_000, 42)
    spoilt = raw.to_pylist()
    spoilt[7]["PULocationID"] = None
    pq.write_table(pa.Table.from_pylist(spoilt), tmp_path / APRIL)
    source = f"--source={tmp_path}"
    run, lines = lab.run(
        "score", source, "--months=2021-04", champion, "--quantiles=0.1, 0.9,0.025", *WIDE
    )
    rows = read_scored(run, "2021-04").to_pandas()
    assert list(rows)[list(rows).index("prediction") :][:4] == ["prediction", "p10", "p90", "p2_5"]
    assert rows.loc[7, ["prediction", "p10", "p90"]].isna().all()
    rows = rows.drop(index=7)
    assert ((rows["p2_5"] <= rows["p10"]) & (rows["p10"] < rows["p90"])).all()
    rows = rows[rows["eligible"]]
    within = (rows["prediction"] - rows["error"]).between(rows["p10"], rows["p90"])
    assert within.mean() == pytest.approx(0.8, abs=0.05)
    minutes, known = rows["prediction"] - rows["error"], rows["error"].notna()
    (month,) = lab.table(run, "months.csv")
    for name, wanted in (("p10", 0.1), ("p90", 0.9), ("p2_5", 0.025)):
        share = (minutes[known] <= rows.loc[known, name]).mean()
        assert share == pytest.approx(wanted, abs=0.05)
        assert run.data.metrics[f"share_within_{name}"] == pytest.approx(share, abs=1e-3)
        assert float(month[f"share_within_{name}"]) == run.data.metrics[f"share_within_{name}"]
    said = f"{run.data.metrics['share_within_p10']:.1%} within p10, "
    assert said in lines[0]
    assert f"| {said}" in run.data.tags["mlflow.note.content"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--quantiles=0.5,half"], "quantiles '0.5,half' holds what is no number"),
        (["--quantiles=0.5,1.5"], "Param 'quantiles': got 1.5"),
        (["--quantiles=nan"], "Param 'quantiles': got nan"),
        (["--quantiles=0.5", "--live=feed"], "Pass live=off, or leave them out"),
    ],
)
def test_quantiles_that_cannot_be_added_are_refused(
    arguments: list[str], said: str, lab: Lab, champion: str
) -> None:
    _, lines = lab.run("score", SIMULATED, "--months=2021-04", champion, *arguments, code=2)
    assert said in lines[-1]


def test_a_month_comes_to_numbers_per_month_and_per_day(lab: Lab, champion: str) -> None:
    run, _ = lab.run("score", SIMULATED, "--months=2021-04", champion, *WIDE)
    rows = read_scored(run, "2021-04")
    counts = rows["eligible"].to_numpy(zero_copy_only=False)
    error = rows["error"].to_numpy()[counts]
    assert run.data.metrics["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert run.data.metrics["n_eligible"] == len(error) < run.data.metrics["n_rows"] == 2_000
    days = lab.table(run, "by_day.csv")
    assert [day["day"] for day in days] == [f"2021-04-{n:02}" for n in range(1, 31)]
    assert sum(int(day["n_trips"]) for day in days) == len(error)
    (month,) = lab.table(run, "months.csv")
    assert float(month["rmse"]) == run.data.metrics["rmse"]
    worst = lab.table(run, "worst_trips.csv")
    assert len(worst) == 100
    assert float(worst[0]["error"]) == pytest.approx(max(error, key=abs), abs=1e-3)
    (entry,) = run.inputs.dataset_inputs
    assert entry.dataset.name == "score 2021-04"
    (point,) = lab.client.get_metric_history(run.info.run_id, "rmse")
    assert point.timestamp == datetime(2021, 4, 1, tzinfo=UTC).timestamp() * 1000
    page = run.data.tags["mlflow.note.content"]
    tested = float(lab.version("scored", "1").tags["rmse_test"])
    assert page.startswith(
        f"**RMSE {float(month['rmse']):.3f} min** on 2021-04 ({tested:.3f} on the test months), "
    )
    assert f"[The worst predicted trips](#/experiments/{run.info.experiment_id}/runs/" in page
    assert run.info.run_name.startswith(f"score · green 2021-04 · {float(month['rmse']):.2f} min")


def test_a_month_without_dropoffs_is_scored_without_errors(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    (raw,) = month_batches("2021-04", 2_000, 42)
    spoilt = raw.drop_columns(["lpep_dropoff_datetime"]).to_pylist()
    spoilt[7]["PULocationID"] = None
    pq.write_table(pa.Table.from_pylist(spoilt), tmp_path / APRIL)
    run, lines = lab.run("score", f"--source={tmp_path}", "--months=2021-04", champion, *WIDE)
    said = "2021-04: predicted 1,999 of 2,000 trips, no drop-off known, rmse estimated "
    assert lines[0].startswith(said)
    rows = read_scored(run, "2021-04")
    assert rows.num_rows == 2_000
    assert rows["prediction"].null_count == 1
    assert rows["prediction"][7].as_py() is None
    assert rows["error"].null_count == 2_000
    assert "rmse" not in run.data.metrics
    assert "worst_trips.csv" not in {
        item.path for item in lab.client.list_artifacts(run.info.run_id)
    }
    note = run.data.tags["mlflow.note.content"]
    assert "drift.csv" in note and "by_day.csv" not in note and "worst_trips.csv" not in note
    assert "; no drift\n" in note
    told = [run.data.metrics[f"rmse_estimated{end}"] for end in ("_low", "", "_high")]
    assert told == sorted(told)
    assert run.data.tags["mlflow.note.content"].startswith(
        f"**no drop-off known, RMSE estimated {told[1]:.3f} ({told[0]:.3f} to {told[2]:.3f}) min**"
    )
    whole = pa.Table.from_batches([raw]).to_pylist()
    whole[7]["PULocationID"] = None
    pq.write_table(pa.Table.from_pylist(whole), tmp_path / APRIL)
    run, lines = lab.run("score", f"--source={tmp_path}", "--months=2021-04", champion, *WIDE)
    metrics = run.data.metrics
    assert [metrics[f"rmse_estimated{end}"] for end in ("_low", "", "_high")] == told
    assert metrics["rmse_estimate_error"] == pytest.approx(told[1] / metrics["rmse"] - 1)
    assert told[0] < metrics["rmse"] < told[2]
    assert "; without drop-offs estimated " in lines[0]
    (month,) = lab.table(run, "months.csv")
    assert float(month["rmse_estimated"]) == told[1]


def test_a_model_of_an_older_version_scores_and_gives_no_estimate(
    lab: Lab, champion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(type(models.unwrapped(load_served("models:/scored/1", "green"))), "losses")
    run, lines = lab.run("score", SIMULATED, "--months=2021-04", champion, *WIDE)
    assert lines[0] == (
        "no estimate without drop-offs: models:/scored/1 does not know its losses. Train it anew."
    )
    assert lines[1].endswith("; without drop-offs not estimated")
    assert "rmse_estimated" not in run.data.metrics
    assert run.data.metrics["rmse"] > 0


def test_an_output_that_exists_is_replaced_only_where_that_is_said(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    given = (SIMULATED, "--months=2021-04", champion, f"--output={tmp_path / 'out'}", *WIDE)
    lab.run("score", *given)
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "green_predictions_2021-04.parquet"
    path.write_text("mine")
    _, lines = lab.run("score", *given, code=2)
    assert lines == [
        f"score: {path} exists. Pass -P overwrite=true to replace it, or another output."
    ]
    assert path.read_text() == "mine"
    (path.parent / f".{path.name}.c0ffee").write_text("half")  # as of a process that was killed
    lab.run("score", *given, "--overwrite=true")
    assert pq.read_table(path).num_rows == 2_000
    assert list(path.parent.iterdir()) == [path]


def test_where_a_relative_output_went_is_said(
    lab: Lab, champion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, lines = lab.run("score", SIMULATED, "--months=2021-04", champion, "--output=out", *WIDE)
    assert f"predictions in {tmp_path / 'out'}" in lines
    assert (tmp_path / "out" / "green_predictions_2021-04.parquet").exists()


SCORE_AND_LIST_MODULES = """
import sys
from steps.score import __main__ as score
score.main(sys.argv[1:])
print(*sorted(name for name in sys.modules if name.startswith(("taxi", "served_"))))
"""


def test_the_checkouts_own_model_code_is_not_imported(lab: Lab, champion: str) -> None:
    command = [sys.executable, "-c", SCORE_AND_LIST_MODULES, SIMULATED, "--months=2021-04"]
    done = subprocess.run([*command, champion, *WIDE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = done.stdout.splitlines()[-1].split()
    assert not {"taxi.model", "taxi.features", "taxi.zones"} & set(imported)
    assert [name for name in imported if name.startswith("served_") and name.endswith(".model")]


# --- on a cluster


def test_a_cluster_scores_the_months_as_this_machine_does(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    given = (SIMULATED, "--months=2021-04,2021-05", champion, *WIDE)
    here, said_here = lab.run("score", *given)
    with dask_cluster(tmp_path) as dask:
        there, said_there = lab.run("score", *given, f"--scheduler={dask.address}")
    assert said_there == said_here
    for month in ("2021-04", "2021-05"):
        assert read_scored(there, month).equals(read_scored(here, month))


def test_a_scheduler_that_does_not_answer(lab: Lab, champion: str) -> None:
    given = (SIMULATED, "--months=2021-04", champion, "--scheduler=tcp://127.0.0.1:9")
    _, (line,) = lab.run("score", *given, code=2)
    assert "No Dask scheduler answers at 'tcp://127.0.0.1:9'" in line


# --- drift


def test_drift_ends_with_exit_code_3_where_that_is_wanted_and_the_run_is_finished(
    lab: Lab, champion: str
) -> None:
    given = (SIMULATED, "--months=2021-04", champion, *NARROW)
    run, lines = lab.run("score", *given, "--fail_on_drift=true", code=3)
    assert run.data.tags["drift"] == "true"
    assert lines[-1].startswith("2021-04: drift: PSI of distance ")
    what = lines[-1].removeprefix("2021-04: drift: ")
    note = run.data.tags["mlflow.note.content"]
    assert f"trips predicted; **drift in 2021-04**: {what}\n" in note
    assert what.endswith(" that on the months it was judged by")
    assert "| month | RMSE, min | rise of RMSE | furthest off, PSI | without drop-offs |" in note
    rows = {row["of"]: float(row["value"]) for row in lab.table(run, "drift.csv")}
    furthest = max((*FEATURES, "prediction"), key=rows.__getitem__)
    assert f" | {rows['RMSE']:+.1%} | {measured_words(furthest)} {rows[furthest]:.3f} | " in note
    root = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts"
    for name in ("drift.png", "drift.csv", "drift_by_zone.png", "by_day.csv", "worst_trips.csv"):
        assert f"]({root}/{name}?workflowType=machine_learning)" in note
    run, _ = lab.run("score", *given)
    assert run.data.tags["drift"] == "true"


JUDGED_BY = "that on the months it was judged by"


@pytest.mark.parametrize(
    ("zone", "rise", "said", "cells"),
    [
        (0.1, 0.1, "", ["+10.0%", "pickup zone 0.100"]),
        (0.3, None, "{moved}", ["", "pickup zone 0.300"]),
        (
            0.3,
            -0.047,
            f"{{moved}}; RMSE is 4.7% below {JUDGED_BY}",
            ["-4.7%", "pickup zone 0.300"],
        ),
        (0.3, -0.0004, f"{{moved}}; RMSE is {JUDGED_BY}", ["+0.0%", "pickup zone 0.300"]),
        (0.1, 0.2, "rise of RMSE 0.200 > 0.15", ["+20.0%", "pickup zone 0.100"]),
        (0.3, 0.2, "{moved}; rise of RMSE 0.200 > 0.15", ["+20.0%", "pickup zone 0.300"]),
    ],
)
def test_what_has_moved_stands_beside_what_the_errors_did(
    zone: float, rise: float | None, said: str, cells: list[str]
) -> None:
    measures = [
        DriftMeasure("PSI", "pickup_zone", zone, 0.25, zone > 0.25),
        DriftMeasure("PSI", "weekday", 0.01, 0.25, False),
    ]
    if rise is not None:
        measures.append(DriftMeasure("rise", "RMSE", rise, 0.15, rise > 0.15))
    assert say_moved(measures) == said.format(moved="PSI of pickup zone 0.300 > 0.25")
    assert drift_cells(measures) == cells


@pytest.mark.pictures
def test_a_month_that_has_not_drifted_ends_well(lab: Lab, champion: str) -> None:
    given = (SIMULATED, "--months=2021-04", champion, *WIDE, "--fail_on_drift=true")
    run, lines = lab.run("score", *given)
    assert lines[-1] == "2021-04: no drift"
    assert run.data.tags["drift"] == "false"
    measures = lab.table(run, "drift.csv")
    assert {row["drifted"] for row in measures} == {"False"}
    assert [row["of"] for row in measures if row["measure"] == "PSI"][-1] == "prediction"
    paths = {item.path for item in lab.client.list_artifacts(run.info.run_id)}
    assert {"drift.png", "drift.csv", "months.csv", "by_day.csv", "predictions"} <= paths
    assert "drift_by_zone.png" in paths


def test_the_city_of_a_model_is_that_of_its_own_preprocess_and_none_where_that_is_elsewhere(
    lab: Lab, champion: str
) -> None:
    city = city_of_model(lab.version("scored", "1").tags["model_uri"])
    assert city is not None and city.name[1] == simulated_zones(42).name[1]
    for elsewhere in (f"models:/m-{'0' * 32}", "/a/folder", ""):
        assert city_of_model(elsewhere) is None


def test_errors_are_compared_with_those_on_the_test_months(lab: Lab, champion: str) -> None:
    tested = float(lab.version("scored", "1").tags["rmse_test"])
    run, _ = lab.run("score", SIMULATED, "--months=2021-04", champion, *WIDE)
    (rise,) = (row for row in lab.table(run, "drift.csv") if row["of"] == "RMSE")
    assert float(rise["value"]) == pytest.approx(run.data.metrics["rmse"] / tested - 1, abs=1e-5)


def test_a_month_that_the_model_has_seen_is_named_and_one_of_other_trips_is_not(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    months = "--months=2021-01,2021-02,2021-04"
    run, lines = lab.run("score", SIMULATED, months, champion, *WIDE)
    said = "2021-01, 2021-02: the model was fitted to these trips or chosen by them, so its "
    assert [line.startswith(said) for line in lines].count(True) == 1
    (verdict, *_) = run.data.tags["mlflow.note.content"].splitlines()
    assert said in verdict
    (raw,) = month_batches("2021-02", 2_000, 7)
    pq.write_table(pa.Table.from_batches([raw]), tmp_path / APRIL.replace("04", "02"))
    run, lines = lab.run("score", f"--source={tmp_path}", "--months=2021-02", champion, *WIDE)
    assert not any("chosen by them" in line for line in lines)
    assert "chosen by them" not in run.data.tags["mlflow.note.content"]


@pytest.fixture
def silent(lab: Lab, champion: str) -> str:
    """A model as it was logged before models stored a training profile."""
    served = models.load("models:/scored/1").unwrap_python_model()
    example = write_frame(simulated_trips("2021-02").take(np.arange(3)), "green")
    uri = log_model(served.model, lab.experiment, example)
    return f"--model_uri={uri}"


def test_a_model_without_a_training_profile_is_used_and_says_so_in_one_line(
    lab: Lab, silent: str
) -> None:
    run, lines = lab.run("score", SIMULATED, "--months=2021-04", silent)
    assert "stores no training profile, so drift cannot be seen. Train it again." in lines[0]
    assert lines[1].startswith("2021-04: predicted 2,000 of 2,000 trips")
    assert run.data.tags["drift"] == "unknown"
    assert "| month | RMSE, min | without drop-offs |" in run.data.tags["mlflow.note.content"]
    _, (line,) = lab.run(
        "score", SIMULATED, "--months=2021-04", silent, "--fail_on_drift=true", code=2
    )
    assert "or leave out fail_on_drift" in line


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--months="], "months is empty. Pass -P months=YYYY-MM"),
        (["--months=2021-13"], "'2021-13' in '2021-13' is not a month"),
        (["--taxi=purple"], "Unknown taxi 'purple'"),
        (["--overwrite=maybe"], "must be true or false, got 'maybe'"),
        (["--max_psi=-1"], "must be a number of at least 0"),
        (["--model_uri=models:/nobody@champion"], "Cannot load model models:/nobody@champion"),
        (["--model_uri=models:/scored/99"], "Cannot load model models:/scored/99"),
        (["--model_uri=runs:/0123/model"], "Cannot load model runs:/0123/model"),
        (["--taxi=yellow"], "needs ['lpep_pickup_datetime'], which yellow trips do not have"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused(
    store: Store, champion: str, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        entry("score").main([SIMULATED, "--months=2021-04", champion, *arguments])
    assert left.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"PULocationID": None}, "Column 'PULocationID' is missing"),
        ({"PULocationID": pa.nulls(2_000, pa.int32())}, "none of its 2,000 rows has a pickup"),
        ({"trip_distance": pa.array(["2,5"] * 2_000)}, "row 1: column 'trip_distance' has '2,5'"),
    ],
    ids=["a column is missing", "no zones", "two readings"],
)
def test_a_month_that_cannot_be_scored_leaves_nothing_behind(
    lab: Lab, champion: str, tmp_path: Path, columns: dict[str, pa.Array | None], said: str
) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 2_000, 42))
    for name, values in columns.items():
        table = table.drop_columns(name)
        table = table if values is None else table.append_column(name, values)
    refused(lab, champion, tmp_path, table, said)


def test_a_month_of_zero_rows(lab: Lab, champion: str, tmp_path: Path) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 2_000, 42)).slice(0, 0)
    refused(lab, champion, tmp_path, table, "none of its 0 rows")


def test_a_month_that_breaks_off_half_way(lab: Lab, champion: str, tmp_path: Path) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 140_000, 42))
    zones = table["PULocationID"].cast(pa.string()).to_pylist()
    zones[135_000] = "7,4"  # in the second batch
    table = table.drop_columns("PULocationID").append_column("PULocationID", pa.array(zones))
    refused(lab, champion, tmp_path, table, "row 135,001: column 'PULocationID' has '7,4'")


def test_a_month_that_is_still_being_written_leaves_nothing_behind(
    lab: Lab, champion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*given: Any) -> MonthFile:
        file = find_month(*given)
        file.path.write_bytes(file.path.read_bytes() + b"\n")
        return file

    path = tmp_path / APRIL.replace("parquet", "csv")
    pa_csv.write_csv(pa.table(next(month_batches("2021-04", 2_000, 42)).to_pydict()), path)
    monkeypatch.setattr("steps.score.month.find_month", find)
    given = (f"--source={tmp_path}", "--months=2021-04", champion, *WIDE)
    _, lines = lab.run("score", *given, f"--output={tmp_path / 'out'}", code=2)
    assert lines[-1].startswith(f"score: {path.as_uri()} was changed while it was read.")
    assert not list((tmp_path / "out").iterdir())


def test_values_that_nobody_can_read_cost_their_rows_and_no_month(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 300, 42))
    odd = {"PULocationID": "Queens", "trip_distance": "far", "lpep_pickup_datetime": "soon"}
    for place, (name, text) in enumerate(odd.items()):
        values = table[name].cast(pa.string()).to_pylist()
        values[place] = text
        table = table.drop_columns(name).append_column(name, pa.array(values))
    pq.write_table(table, tmp_path / APRIL)
    run, lines = lab.run("score", f"--source={tmp_path}", "--months=2021-04", champion, *WIDE)
    scored = read_scored(run, "2021-04")
    n_null = table["PULocationID"].null_count
    assert n_null == 0
    assert scored["prediction"].is_null().to_pylist() == [True, False, True] + [False] * 297
    assert scored["eligible"].to_pylist()[:3] == [False] * 3
    assert any("'Queens'" in line and "2021-04" in line for line in lines)


def refused(lab: Lab, champion: str, folder: Path, table: pa.Table, said: str) -> None:
    """Score a month that must be refused, naming its file, with nothing left in the output."""
    pq.write_table(table, folder / APRIL)
    out = folder / "out"
    given = (f"--source={folder}", "--months=2021-04", champion, f"--output={out}")
    _, (line,) = lab.run("score", *given, code=2)
    assert said in line
    assert APRIL in line
    assert list(out.iterdir()) == []


def test_columns_that_nobody_asked_for_are_left_alone(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 2_000, 42))
    table = table.append_column("mood", pa.array(["good"] * 2_000))
    pq.write_table(table, tmp_path / APRIL)
    run, _ = lab.run("score", f"--source={tmp_path}", "--months=2021-04", champion, *WIDE)
    assert "mood" not in read_scored(run, "2021-04").column_names


def test_an_output_that_is_a_file(lab: Lab, champion: str, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    given = (SIMULATED, "--months=2021-04", champion, f"--output={tmp_path / 'taken'}")
    _, (line,) = lab.run("score", *given, code=2)
    assert f"Cannot write to {tmp_path / 'taken'}" in line
