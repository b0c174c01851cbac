"""With which kinds of distance a candidate's errors are measured, and which of them decides."""

import sqlite3

import pytest

from steps.common.results import RMSES, Candidate, Code
from storage.tracking import runs
from taxi.distances import select_distance_kind
from tests.entry import entry
from tests.steps.lab import BETTER, GOOD, Lab, Pipelines


def test_every_error_is_measured_with_each_kind_of_distance(lab: Lab, pipelines: Pipelines) -> None:
    lab.register("known", *pipelines.of(lab, GOOD))
    run, _ = lab.register("known", *pipelines.of(lab, BETTER))
    for family in ("test_", "champion_test_"):
        with_each = [run.data.metrics[family + name] for name in RMSES.values()]
        # the better the distance is known, the better are the predictions
        assert with_each == sorted(with_each)
        assert len(set(with_each)) == 4
    version = lab.version("known", "2")
    assert f"| no distance | {run.data.metrics['test_rmse_missing']:.3f} |" in version.description
    (candidate,) = runs.children(given_hpo(pipelines.of(lab, BETTER)))
    assert set(RMSES.values()) <= candidate.data.metrics.keys()


def given_hpo(given: list[str]) -> str:
    """Return the id of the hpo run among parameters."""
    (run_id,) = (word.partition("=")[2] for word in given if word.startswith("--hpo_run_id="))
    return run_id


def test_a_candidate_is_judged_by_the_distance_asked_for(lab: Lab, pipelines: Pipelines) -> None:
    scores = lab.register("judged", *pipelines.of(lab, GOOD))[0].data.metrics
    between = (scores["test_rmse"] + scores["test_rmse_missing"]) / 2
    given = [*pipelines.of(lab, GOOD), f"--max_rmse={between}"]
    _, said = lab.register("metered", *given)
    assert "alias champion" in said
    run, said = lab.register("missing", *given, "--judge_by=missing")
    assert "alias challenger" in said
    assert "test RMSE with no distance is " in said
    assert lab.table(run, "gate.csv")[0]["check"] == "test RMSE with no distance"
    assert lab.version("missing", "1").tags["judged_by"] == "missing"


def test_the_champion_is_beaten_by_the_distance_asked_for(lab: Lab, pipelines: Pipelines) -> None:
    lab.register("beaten", *pipelines.of(lab, GOOD))
    given = [*pipelines.of(lab, BETTER), "--min_improvement=0"]
    run, _ = lab.register("beaten", *given, "--judge_by=planned")
    metrics = run.data.metrics
    gained = metrics["champion_test_rmse_planned_10"] - metrics["test_rmse_planned_10"]
    assert metrics["improvement"] == pytest.approx(gained)
    assert metrics["improvement_low"] < gained < metrics["improvement_high"]
    beside = "test RMSE against the champion's with distance planned to ±10 % is "
    assert beside in run.data.tags["reasons"]


@pytest.mark.parametrize(("judge_by", "best"), [("metered", "near"), ("missing", "blind")])
def test_the_candidate_is_chosen_by_the_distance_asked_for(judge_by: str, best: str) -> None:
    scores = {
        "near": {"rmse": 5.0, "rmse_missing": 8.0},
        "blind": {"rmse": 6.0, "rmse_missing": 6.0},
    }
    candidates = [
        Candidate("run", name, "full", "uri", values, Code("", False))
        for name, values in scores.items()
    ]
    assert (
        entry("register").choose_candidate(candidates, select_distance_kind(judge_by)).model == best
    )


def test_a_candidate_that_was_never_measured_so_is_refused_before_any_step_starts(
    lab: Lab, pipelines: Pipelines
) -> None:
    given = pipelines.of(lab, GOOD, developer="Bob")
    (candidate,) = runs.children(given_hpo(given))
    forget_metric(lab, candidate.info.run_id, "rmse_planned_10")
    _, said = lab.register("old", *given, "--judge_by=planned", code=2)
    assert f"rmse_planned_10 of each candidate, and run {candidate.info.run_id} has none" in said
    assert "Run hpo again, or leave out judge_by" in said
    assert "old" not in lab.store.registered()
    _, said = lab.register("old", *given)
    assert "alias champion" in said


def forget_metric(lab: Lab, run_id: str, name: str) -> None:
    """Delete a metric of a run, as if an older version of this project had made it."""
    with sqlite3.connect(lab.store.uri.removeprefix("sqlite:///")) as store:
        for table in ("metrics", "latest_metrics"):
            store.execute(f"DELETE FROM {table} WHERE run_uuid = ? AND key = ?", (run_id, name))
