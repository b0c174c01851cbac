"""Months scored in bulk: what is written, here and on a cluster."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.common.results import read_scoring
from steps.common.served import load_served
from steps.pipelines import nested
from steps.score.estimate import print_months_beyond_calendar
from storage.checkout import ROOT
from storage.tracking import models
from taxi.features import fit_encoder
from taxi.model import TripModel, input_columns
from taxi.simulation import month_batches
from taxi.words import percent
from tests.clusters import dask_cluster
from tests.conftest import simulated_trips
from tests.entry import parsed
from tests.steps.lab import Lab
from tests.steps.score.conftest import APRIL_FILE, SIMULATED, WIDE, read_scored

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
    pq.write_table(pa.Table.from_pylist(spoilt), tmp_path / APRIL_FILE)
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
    said = f"{percent(run.data.metrics['share_within_p10'])} within p10, "
    assert said in lines[0]
    assert f"| {said}" in run.data.tags["mlflow.note.content"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--quantiles=0.5,half"], "quantiles '0.5,half' is not a list of numbers"),
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
    pq.write_table(pa.Table.from_pylist(spoilt), tmp_path / APRIL_FILE)
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
    pq.write_table(pa.Table.from_pylist(whole), tmp_path / APRIL_FILE)
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
        "no estimate without drop-offs: models:/scored/1 was saved without its errors. "
        "Train it again, on at least 20 valid trips."
    )
    assert lines[1].endswith("; without drop-offs not estimated")
    assert "rmse_estimated" not in run.data.metrics
    assert run.data.metrics["rmse"] > 0


def test_of_a_model_that_looks_at_days_of_school_the_months_beyond_its_calendar_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for trained_in, said in (("2021-02", "2026-12: the school calendar covers "), ("2021-01", "")):
        encoder = fit_encoder("full", simulated_trips(trained_in), None)
        model = SimpleNamespace(model=TripModel("green", encoder, []))
        served = SimpleNamespace(unwrap_python_model=lambda model=model: model)
        print_months_beyond_calendar(served, ["2026-11", "2026-12"])
        out = capsys.readouterr().out
        assert (out.count("\n"), out[: len(said)]) == (1 if said else 0, said)
    print_months_beyond_calendar(SimpleNamespace(unwrap_python_model=lambda: None), ["2026-12"])
    assert capsys.readouterr().out == ""


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
    (path.parent / f".{path.name}.c0ffee").write_text("half")  # as left by a killed process
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
