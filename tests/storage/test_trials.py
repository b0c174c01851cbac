"""Trials as runs in MLflow."""

from mlflow import MlflowClient

from storage import runs, trials
from tests.stores import Store


def test_a_trial_holds_its_parameters_tags_score_and_whole_curve(store: Store) -> None:
    curve = [9.0 - 0.001 * n for n in range(2 * trials.MAX_METRICS + 5)]
    with runs.StepRun("hpo", "Ada"):
        parent = runs.active().info.run_id
        log = trials.TrialRuns(parent, {"model": "xgboost"})
        log.start(0)
        log.start(1)
        log.finish(1, params={"max_depth": 6}, metrics={"rmse": 6.5}, curves={"by_round": curve})
        log.finish(0, params={"max_depth": 7}, metrics={"rmse": 6.25}, curves={})
    found = {run.data.tags["trial"]: run for run in runs.children(parent)}
    assert {name: run.data.metrics["rmse"] for name, run in found.items()} == {"0": 6.25, "1": 6.5}
    run = found["1"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "trial 1"
    assert run.data.params == {"max_depth": "6"}
    assert (run.data.tags["model"], run.data.tags["developer"]) == ("xgboost", "Ada")
    points = MlflowClient(store.uri).get_metric_history(run.info.run_id, "by_round")
    assert sorted((point.step, point.value) for point in points) == list(enumerate(curve))
