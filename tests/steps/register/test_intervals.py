"""Whether a candidate's 80 % intervals hold on test, and what follows if they do not."""

from types import SimpleNamespace
from typing import Any

import pytest

from steps.register.coverage import measure_coverage
from taxi.words import percent
from tests.steps.lab import GOOD, Lab, Pipelines


def test_the_coverage_of_the_interval_is_measured_by_group_and_asked_by_the_gate(
    lab: Lab, pipelines: Pipelines
) -> None:
    run, said = lab.register("covered", *pipelines.of(lab, GOOD))
    assert "alias champion" in said
    rows = lab.table(run, "coverage.csv")
    first, last = rows[0], rows[-1]
    assert (first["kind"], first["group"]) == ("all", "all")
    assert (last["kind"], last["group"]) == ("distance", "all trips, asked with none")
    assert {row["kind"] for row in rows} == {"all", "hour", "distance"}
    covered = run.data.metrics["test_coverage"]
    assert float(first["coverage"]) == covered == pytest.approx(0.8, abs=0.05)
    assert last["n_trips"] == first["n_trips"]
    checks = {row["check"]: row for row in lab.table(run, "gate.csv")}
    asked = checks["coverage of the 80 % interval"]
    assert (asked["found"], asked["passed"]) == (percent(covered), "True")


def test_intervals_that_are_off_by_more_than_allowed_refuse_the_candidate(
    lab: Lab, pipelines: Pipelines
) -> None:
    _, said = lab.register("off", *pipelines.of(lab, GOOD), "--max_coverage_gap=0")
    assert "alias challenger" in said
    assert "champion is none: coverage of the 80 % interval is " in said
    assert "wanted 80 to 80 %" in said


def test_a_model_from_before_there_were_intervals_is_tested_without() -> None:
    """A model of 0.1.0, for example: the code that is saved with it does not know of intervals."""
    before = SimpleNamespace(unwrap_python_model=lambda: SimpleNamespace(model=object()))
    no_trip: Any = None
    assert measure_coverage(before, "models:/m-1", no_trip) == []
