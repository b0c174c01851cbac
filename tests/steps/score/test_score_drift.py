"""What is reported of a scored month compared with the trips that the model was fitted to."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from steps.score.record import (
    city_of_model,
    describe_estimate_error,
    describe_month_drift,
    drift_cells,
)
from storage.tracking import models
from taxi.drift import COMPARED_HISTOGRAMS, DriftMeasure
from taxi.model import trips_to_frame
from taxi.simulation import month_batches, simulated_zones
from taxi.words import drift_subject, percent
from tests.conftest import simulated_trips
from tests.logged import log_model
from tests.steps.lab import Lab
from tests.steps.score.conftest import APRIL_FILE, SIMULATED, WIDE, read_scored


def test_drift_ends_with_exit_code_3_where_that_is_wanted_and_the_run_is_finished(
    lab: Lab, champion: str
) -> None:
    given = (SIMULATED, "--months=2021-04", champion, "--max_psi=0")
    run, lines = lab.run("score", *given, "--fail_on_drift=true", code=3)
    assert run.data.tags["drift"] == "true"
    assert lines[-1].startswith("2021-04: drift: PSI of distance ")
    what = lines[-1].removeprefix("2021-04: drift: ")
    note = run.data.tags["mlflow.note.content"]
    assert f"trips predicted; **drift in 2021-04**: {what}\n" in note
    assert what.endswith(" that on the months it was judged by")
    assert "| month | RMSE, min | rise of RMSE | largest PSI | without drop-offs |" in note
    months = "-P train_months=2021-02 -P valid_months=2021-03 -P test_months=2021-04"
    assert f" {months} -P model_name=scored`\n" in note
    rows = {row["of"]: float(row["value"]) for row in lab.table(run, "drift.csv")}
    furthest = max((*COMPARED_HISTOGRAMS, "prediction"), key=rows.__getitem__)
    rise, psi = percent(rows["RMSE"], sign="+"), f"{rows[furthest]:.3f}"
    assert f" | {rise} | {drift_subject(furthest)} {psi} | " in note
    root = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts"
    for name in ("drift.png", "drift.csv", "drift_by_zone.png", "by_day.csv", "worst_trips.csv"):
        assert f"]({root}/{name}?workflowType=machine_learning)" in note
    run, _ = lab.run("score", *given)
    assert run.data.tags["drift"] == "true"


def test_a_model_of_the_months_before_a_drifted_one_is_not_told_to_be_trained_once_more(
    lab: Lab, champion: str
) -> None:
    run, _ = lab.run("score", SIMULATED, "--months=2021-03", champion, "--max_psi=0")
    assert run.data.tags["drift"] == "true"
    assert "train_months" not in run.data.tags["mlflow.note.content"]


JUDGED_BY = "that on the months it was judged by"


@pytest.mark.parametrize(
    ("zone", "rise", "said", "cells"),
    [
        (0.1, 0.1, "", ["+10.0 %", "pickup zone 0.100"]),
        (0.3, None, "{moved}", ["", "pickup zone 0.300"]),
        (
            0.3,
            -0.047,
            f"{{moved}}; RMSE is 4.7 % below {JUDGED_BY}",
            ["-4.7 %", "pickup zone 0.300"],
        ),
        (0.3, -0.0004, f"{{moved}}; RMSE is {JUDGED_BY}", ["+0.0 %", "pickup zone 0.300"]),
        (0.1, 0.2, "rise of RMSE 0.200 > 0.15", ["+20.0 %", "pickup zone 0.100"]),
        (0.3, 0.2, "{moved}; rise of RMSE 0.200 > 0.15", ["+20.0 %", "pickup zone 0.300"]),
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
    assert describe_month_drift(measures) == said.format(moved="PSI of pickup zone 0.300 > 0.25")
    assert drift_cells(measures) == cells


def test_how_many_days_of_a_month_there_are_trips_of_is_said_where_some_are_missing(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 2_000, 42))
    half = pc.less(table["lpep_pickup_datetime"], pa.scalar(datetime(2021, 4, 16)))
    pq.write_table(table.filter(half), tmp_path / APRIL_FILE)
    run, lines = lab.run("score", f"--source={tmp_path}", "--months=2021-04", champion)
    assert "; trips of 15 of 30 days" in lines[0]
    assert "; **2021-04: trips of 15 of 30 days**" in run.data.tags["mlflow.note.content"]
    run, lines = lab.run("score", SIMULATED, "--months=2021-04", champion)
    assert " days" not in lines[0] + run.data.tags["mlflow.note.content"]


def test_a_month_that_the_models_intervals_do_not_hold_is_an_alarm_with_a_live_level_or_without(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 2_000, 42))
    start, end = (table[f"lpep_{name}_datetime"].to_numpy() for name in ("pickup", "dropoff"))
    longer = start + (end - start) * np.where(np.arange(2_000) % 2, 1.6, 0.6)
    place = table.column_names.index("lpep_dropoff_datetime")
    moved = table.set_column(place, "lpep_dropoff_datetime", pa.array(longer.astype("M8[us]")))
    pq.write_table(moved, tmp_path / APRIL_FILE)
    given = (f"--source={tmp_path}", "--months=2021-04", champion, *WIDE, "--fail_on_drift=true")
    run, lines = lab.run("score", *given, "--quantiles=0.1,0.9", code=3)
    rows = read_scored(run, "2021-04").to_pandas()
    rows = rows[rows["eligible"]]
    within = (rows["prediction"] - rows["error"]).between(rows["p10"], rows["p90"]).mean()
    assert run.data.metrics["coverage"] == pytest.approx(within, abs=2e-3)
    assert f"; the 80 % interval covers {percent(run.data.metrics['coverage'])}" in lines[0]
    assert lines[1].startswith("2021-04: drift: coverage gap of 80 % interval 0.")
    note = run.data.tags["mlflow.note.content"]
    assert "**drift in 2021-04**: coverage gap of 80 % interval 0." in note
    live, _ = lab.run("score", *given, "--live=feed", code=3)
    assert live.data.metrics["coverage"] == run.data.metrics["coverage"]
    assert "p10" not in read_scored(live, "2021-04").column_names
    wide, lines = lab.run("score", *given, "--max_coverage_gap=0.9")
    assert lines[-1] == "2021-04: no drift"
    (month,) = lab.table(wide, "months.csv")
    assert float(month["coverage"]) == run.data.metrics["coverage"]


@pytest.mark.parametrize(
    ("error", "said"),
    [(0.0514, "5.1 % too high"), (-0.0514, "5.1 % too low"), (-0.0004, "0.0 % off")],
)
def test_an_estimate_that_was_right_is_not_said_to_be_too_high_or_too_low(
    error: float, said: str
) -> None:
    assert describe_estimate_error(error) == said


@pytest.mark.pictures
def test_a_month_that_has_not_drifted_ends_well(lab: Lab, champion: str) -> None:
    given = (SIMULATED, "--months=2021-04", champion, *WIDE, "--fail_on_drift=true")
    run, lines = lab.run("score", *given)
    assert lines[-1] == "2021-04: no drift"
    assert run.data.tags["drift"] == "false"
    assert "train_months" not in run.data.tags["mlflow.note.content"]
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
    said = "2021-01, 2021-02: the model was fitted to or chosen on these trips, so its "
    assert [line.startswith(said) for line in lines].count(True) == 1
    (verdict, *_) = run.data.tags["mlflow.note.content"].splitlines()
    assert said in verdict
    (raw,) = month_batches("2021-02", 2_000, 7)
    pq.write_table(pa.Table.from_batches([raw]), tmp_path / APRIL_FILE.replace("04", "02"))
    run, lines = lab.run("score", f"--source={tmp_path}", "--months=2021-02", champion, *WIDE)
    assert not any("chosen on these trips" in line for line in lines)
    assert "chosen on these trips" not in run.data.tags["mlflow.note.content"]


@pytest.fixture
def silent(lab: Lab, champion: str) -> str:
    """A model like those that were logged before models stored a training profile."""
    served = models.load("models:/scored/1").unwrap_python_model()
    example = trips_to_frame(simulated_trips("2021-02").take(np.arange(3)), "green")
    uri = log_model(served.model, lab.experiment, example)
    return f"--model_uri={uri}"


def test_a_model_without_a_training_profile_is_used_and_says_so_in_one_line(
    lab: Lab, silent: str
) -> None:
    run, lines = lab.run("score", SIMULATED, "--months=2021-04", silent)
    assert "stores no training profile, so drift cannot be measured. Train it again." in lines[0]
    assert lines[1].startswith("2021-04: predicted 2,000 of 2,000 trips")
    assert run.data.tags["drift"] == "unknown"
    assert "| month | RMSE, min | without drop-offs |" in run.data.tags["mlflow.note.content"]
    _, (line,) = lab.run(
        "score", SIMULATED, "--months=2021-04", silent, "--fail_on_drift=true", code=2
    )
    assert "or leave out fail_on_drift" in line
