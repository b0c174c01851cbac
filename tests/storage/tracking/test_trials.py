"""Trials as runs in MLflow: all that is needed to resume a search."""

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from storage import StoreGoneError
from storage.tracking import processes, refusals, runs, trials
from storage.tracking.tags import CURVE, NOTE, STARTED
from storage.tracking.trials import TrialRuns
from tests.stores import Store

LONG = [9.0 - 0.001 * n for n in range(2 * trials.MAX_METRICS + 5)]
DEAD = processes.process_tags() | {STARTED: "1000000000"}


@pytest.fixture(autouse=True)
def step(store: Store) -> None:
    """Keep the run of a step active."""
    with runs.StepRun("hpo", "Ada"):
        yield


def write(log: TrialRuns, number: int, *, rmse: float = 6.5, curve: list[float] = LONG) -> str:
    log.start(number)
    return log.finish(
        number,
        params={"max_depth": 6, "eta": 0.1 + 0.2},
        metrics={"rmse": rmse},
        curve={2 * place: value for place, value in enumerate(curve)},
        tags={"pruned": "false"},
    )


def status(run_id: str) -> str:
    return str(mlflow.get_run(run_id).info.status)


def test_a_trial_holds_its_parameters_tags_score_and_whole_curve(store: Store) -> None:
    parent = runs.active()
    with TrialRuns("key a", {"model": "xgboost"}) as log:
        log.start(0)
        second = write(log, 1)
        first = log.finish(0, params={}, metrics={"rmse": 6.25}, curve={}, tags={})
    found = {run.data.tags["trial"]: run for run in runs.children(parent.info.run_id)}
    assert {name: run.info.run_id for name, run in found.items()} == {"0": first, "1": second}
    run = found["1"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "trial 1"
    assert run.data.params == {"max_depth": "6", "eta": str(0.1 + 0.2)}
    assert run.data.metrics["rmse"] == 6.5
    tags = run.data.tags
    assert (tags["model"], tags["developer"], tags["pruned"]) == ("xgboost", "Ada", "false")
    assert processes.process_tags().items() <= tags.items()
    points = MlflowClient(store.uri).get_metric_history(run.info.run_id, CURVE)
    assert sorted((point.step, point.value) for point in points) == list(
        zip(range(0, 2 * len(LONG), 2), LONG, strict=True)
    )


def test_finished_trials_are_read_back_to_the_last_digit() -> None:
    curve = [6.1, 1 / 3, 6.0 + 1e-15]
    with TrialRuns("key b", {}) as log:
        run_id = write(log, 4, rmse=1 / 3, curve=curve)
    found = TrialRuns("key b", {}).recorded()
    assert set(found) == {4}
    assert found[4].run_id == run_id
    assert found[4].curve == curve
    assert found[4].metrics["rmse"] == 1 / 3
    assert float(found[4].params["eta"]) == 0.1 + 0.2


def test_trials_of_another_search_do_not_count() -> None:
    with TrialRuns("key c", {}) as log:
        write(log, 0)
    assert TrialRuns("key d", {}).recorded() == {}


def test_a_trial_that_failed_was_killed_or_was_deleted_is_not_finished() -> None:
    client = MlflowClient()
    with TrialRuns("key e", {}) as log:
        log.start(0)
        failed = log.fail(0, "XGBoostError: no memory")
        log.start(1)
        killed = log.run_ids[1]
        client.delete_run(write(log, 2))
        kept = write(log, 3)
    assert status(failed) == "FAILED"
    assert mlflow.get_run(failed).data.tags["failure"] == "XGBoostError: no memory"
    assert status(killed) == "KILLED"
    assert "the search ended before it did" in mlflow.get_run(killed).data.tags[NOTE]
    assert {number: run.run_id for number, run in log.recorded().items()} == {3: kept}
    assert trials.n_finished(runs.active_info().experiment_id, "key e") == 1


def test_of_two_runs_of_one_trial_the_first_counts() -> None:
    with TrialRuns("key f", {}) as log:
        first = write(log, 0)
        write(log, 0)
    assert log.recorded()[0].run_id == first


def test_trials_of_a_dead_process_are_closed_and_those_of_a_living_one_are_not() -> None:
    log = TrialRuns("key g", {})
    log.start(0)
    log.tags |= DEAD
    log.start(1)
    alive, dead = log.run_ids[0], log.run_ids[1]
    assert TrialRuns("key g", {}).recorded() == {}
    assert (status(alive), status(dead)) == ("RUNNING", "KILLED")
    MlflowClient().set_terminated(alive)


def test_nothing_is_asked_of_a_store_that_has_gone() -> None:
    log = TrialRuns("key h", {})
    with pytest.raises(StoreGoneError), log:
        log.start(0)
        raise StoreGoneError("gone")
    assert status(log.run_ids[0]) == "RUNNING"
    MlflowClient().set_terminated(log.run_ids[0])


def finish_search(space_key: str, search_key: str, point: str) -> None:
    with mlflow.start_run(nested=True):
        mlflow.set_tags({"space_key": space_key, "search_key": search_key, "best_point": point})


def test_earlier_points_are_those_of_the_latest_other_searches_of_the_space() -> None:
    for number in range(4):
        finish_search("space", f"search {number}", f'{{"eta": 0.{number}}}')
    finish_search("other space", "search 9", '{"eta": 0.9}')
    mlflow.start_run(nested=True, tags={"space_key": "space", "search_key": "interrupted"})
    mlflow.end_run("KILLED")  # before it knew its best point
    found = trials.earlier_points("space", "search 2", 2)
    assert found == [{"eta": 0.3}, {"eta": 0.1}]
    assert trials.earlier_points("no such space", "search 2", 2) == []


def test_a_call_that_no_server_answered_is_told_from_one_that_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(mlflow.MlflowException) as gone:
        MlflowClient("http://127.0.0.1:1").get_run("a")
    with pytest.raises(mlflow.MlflowException) as refused:
        MlflowClient().get_run("a")
    assert refusals.is_unreachable(gone.value)
    assert not refusals.is_unreachable(refused.value)


def test_a_search_that_fails_says_why_where_its_trials_cannot_be_closed_either(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        asked.append(1)
        raise MlflowException("no")

    asked: list[int] = []
    with pytest.raises(ValueError, match="wrong"), TrialRuns("key f", {}) as log:
        log.start(0)
        log.start(1)
        monkeypatch.setattr(log.client, "set_terminated", refuse)
        raise ValueError("wrong")
    assert len(asked) == 2
