"""Slices where the champion is significantly better than a candidate that is better overall."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag
from mlflow.exceptions import MlflowException

from steps.register import old_months
from steps.register.old_months import (
    OldMonths,
    check_age,
    compare_on_old_months,
    read_champion_trips,
)
from storage import StorageError, UserError
from storage.tracking import models
from storage.tracking.artifacts import LostError
from taxi.slices import AIRPORTS
from tests.steps.lab import BAD, BETTER, GOOD, SIMULATED, Lab, Pipelines


@pytest.fixture
def bad_at_airports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make candidates, which are loaded by their own URI, fifteen minutes wrong at airports."""
    predict = models.predict_typed

    def predict_worse(model: Any, frame: pd.DataFrame, uri: str) -> np.ndarray:
        minutes = predict(model, frame, uri)
        is_there = frame[["PULocationID", "DOLocationID"]].isin(AIRPORTS).any(axis=1)
        off = 15 if uri.startswith("models:/m-") else 0
        return minutes + off * is_there.to_numpy()

    monkeypatch.setattr(models, "predict_typed", predict_worse)


def test_a_candidate_that_is_worse_at_airports_is_refused_by_name_and_number(
    lab: Lab, pipelines: Pipelines, bad_at_airports: None
) -> None:
    lab.register("slices", *pipelines.of(lab, BAD))
    run, said = lab.register("slices", *pipelines.of(lab, BETTER))
    assert run.data.metrics["improvement_low"] > 0
    asked = "slices whose RMSE is significantly above the champion's with metered distance"
    assert f"{asked} is airports by" in said
    assert "wanted none by more than 5.0 %, or allow_slice_loss=true" in said
    rows = {row["check"]: row for row in lab.table(run, "gate.csv")}
    airports = rows["RMSE above the champion's: airports"]
    assert airports["passed"] == "False"
    assert " trips, at least " in airports["found"]
    assert rows["RMSE above the champion's: 10 to 16 h"]["passed"] == "True"
    page = run.data.tags["mlflow.note.content"]
    assert f"| RMSE above the champion's: airports | {airports['found']} | " in page
    run, said = lab.register("slices", *pipelines.of(lab, BETTER), "--allow_slice_loss=true")
    assert "slices version 2, alias champion, in place of version 1" in said
    assert lab.version("slices", "2").tags["allowed"] == "allow_slice_loss"
    assert "); allow_slice_loss |" in lab.client.get_registered_model("slices").description


def test_the_champions_own_test_months_are_looked_at_where_they_can_be_had(
    lab: Lab, pipelines: Pipelines
) -> None:
    lab.register("old", *pipelines.of(lab, GOOD))
    later, _ = lab.run("preprocess", SIMULATED, "--train_months=2021-01", "--valid_months=2021-03")
    given = [f"--{step}_run_id={lab.step(step, later, depth)}" for step, depth in WANTED]
    run, said = lab.register("old", *given, *EASY)
    assert "alias champion, in place of version 1" in said
    rows = {row["check"]: row for row in lab.table(run, "gate.csv")}
    name = "the champion's own test months 2021-03, which the candidate has seen"
    assert rows[f"RMSE above the champion's: {name}"]["passed"] == "True"

    lab.client.set_registered_model_alias("old", "champion", "1")
    lab.client.set_model_version_tag("old", "1", "sha256.test", "ab" * 32)
    run, lines = lab.run("register", "--model_name=old", *given, *EASY)
    (line,) = (one for one in lines if one.startswith("the champion's own test months: "))
    assert line.startswith("the champion's own test months: 2021-03, not compared: run ")
    assert line.endswith(" holds others.")
    rows = {row["check"]: row for row in lab.table(run, "gate.csv")}
    row = rows["the champion's own test months"]
    assert (row["found"], row["passed"]) == (line.partition("months: ")[2], "True")

    lab.client.set_registered_model_alias("old", "champion", "1")
    lab.client.set_model_version_tag("old", "1", "months.test", "2019-12,2020-02")
    run, lines = lab.run("register", "--model_name=old", *given, *EASY)
    assert any(line.endswith("not compared: over a year before 2021-04.") for line in lines)


@pytest.mark.parametrize(
    ("marks", "is_simulated", "said"),
    [
        # a version that somebody registered by hand has no tags; of 0.1.0 its model has none
        ({}, False, "nothing names their run: it was registered by hand"),
        ({"data": "real"}, True, "simulated months beside real ones"),
        ({"data": "simulated"}, False, "simulated months beside real ones"),
        ({"data": "simulated"}, True, "nothing names their run"),
    ],
)
def test_why_a_champion_s_test_months_cannot_be_had_is_told(
    marks: dict[str, str], is_simulated: bool, said: str
) -> None:
    version = ModelVersion("any", "1", 0, tags=[ModelVersionTag(*mark) for mark in marks.items()])
    with pytest.raises(UserError, match=f"^{said}"):
        read_champion_trips(version, "ab" * 32, is_simulated=is_simulated)


def no_trips(error: UserError, cause: Exception) -> Callable[..., None]:
    """Return a function that looks for trips, and fails with an error of the store."""

    def find_none(*_: object, **__: object) -> None:
        raise error from cause

    return find_none


def test_the_gate_waives_lost_test_months_and_none_that_a_store_does_not_give_for_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    champion = ModelVersion("any", "1", 0, tags=[ModelVersionTag("months.test", "2021-03")])
    test: Any = SimpleNamespace(sha256="ab", months={"2021-04"}, is_simulated=False)
    away = MlflowException("API request to endpoint /x failed with error code 503 != 200.")
    lost, refused = LostError("It is lost."), StorageError("It does not come whole.")
    monkeypatch.setattr(old_months, "read_champion_trips", no_trips(lost, away))
    found = compare_on_old_months(champion, "models:/m-1", test, frozenset())
    assert found == OldMonths([], "2021-03, not compared: It is lost.")
    monkeypatch.setattr(old_months, "read_champion_trips", no_trips(refused, away))
    with pytest.raises(StorageError, match="does not come whole"):
        compare_on_old_months(champion, "models:/m-1", test, frozenset())
    champion.tags["sha256.test"] = "ab"  # the very trips that both are judged by anyway
    assert compare_on_old_months(champion, "models:/m-1", test, frozenset()) == OldMonths([])


@pytest.mark.parametrize(
    ("months", "now", "refused"),
    [
        ("2022-02", "2023-03", True),
        ("2022-03", "2023-03", False),
        ("2021-12,2022-03", "2023-03", False),
        ("2022-03,2021-12", "2023-03", False),
        ("2021-12", "2023-01", True),
        ("2023-02", "2023-01", False),
        ("", "2023-03", False),
    ],
)
def test_trips_of_over_a_year_before_are_not_to_be_expected_again(
    months: str, now: str, refused: bool
) -> None:
    with pytest.raises(UserError, match=now) if refused else nullcontext():
        check_age(months, now)


WANTED = (("baseline", None), ("hpo", BETTER))
EASY = (
    "--max_rmse=12",
    "--min_r2=0",
    "--refit=train",
    "--max_coverage_gap=1",
    "--min_improvement=0",
)
