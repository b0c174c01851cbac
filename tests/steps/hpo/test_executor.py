"""A search on a real Dask cluster: a scheduler and two workers, each in its own process."""

import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steps.hpo import __main__ as hpo
from steps.hpo.executor import TrialExecutor, open_executor
from storage import StorageError
from storage.cluster import executor as cluster
from storage.cluster import held_data
from storage.tracking.trials import TrialRuns
from taxi import features, spaces
from taxi.boosting import Outcome, PruningThreshold, TrainingJob, build_matrices, train_booster
from taxi.rows import make_rows
from taxi.spaces import LOSSGUIDE, Pruning
from tests.clusters import SCHEDULER, Dask, dask_cluster
from tests.conftest import simulated_trips
from tests.docs import readme_command
from tests.servers import free_port
from tests.stores import Store

SLOW = LOSSGUIDE | {"max_leaves": 8, "learning_rate": 0.01, "nthread": 1, "seed": 1}


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as dask:
        yield dask


def opened(rows: Any, address: str, device: str = "cpu") -> AbstractContextManager[TrialExecutor]:
    return open_executor(rows, scheduler=address, device=device, parallelism=0)


@pytest.fixture(scope="module")
def rows() -> Any:
    train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    return make_rows(features.fit_encoder("compact", train), train, valid)


@pytest.mark.parametrize(
    ("n_parallel", "n_workers", "n_more"),
    [(1, 1, 1), (2, 2, 2), (1, 2, 0), (3, 4, 0), (3, 2, 1), (40, 16, 0)],
)
def test_a_full_place_has_jobs_waiting_and_one_that_is_not_runs_no_more_than_asked_for(
    n_parallel: int, n_workers: int, n_more: int
) -> None:
    executor = TrialExecutor(lambda job: Future(), n_workers)
    assert executor.n_waiting(n_parallel) == n_more


def test_workers_without_a_checkout_train_the_very_boosters_of_this_machine(
    dask: Dask, rows: Any
) -> None:
    job = TrainingJob(SLOW, rounds=20, patience=20, keep_booster=True)
    pruned = job._replace(
        pruning_threshold=PruningThreshold(0.0, Pruning(1, 1)), keep_booster=False
    )
    with opened(rows, dask.address) as executor:
        assert executor.n_workers == 2
        found, given_up = (executor.submit(each).result(timeout=60) for each in (job, pruned))
    here = train_booster(build_matrices(rows), job)
    assert isinstance(found, Outcome)
    assert found.booster.save_raw("ubj") == here.booster.save_raw("ubj")
    assert found.curve == here.curve
    assert given_up.pruned
    assert len(given_up.curve) == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gpu_trains_one_trial_at_a_time_however_many_are_asked_for(
    rows: Any, device: str
) -> None:
    with open_executor(rows, scheduler="", device=device, parallelism=3) as executor:
        assert executor.n_workers == (1 if device == "cuda" else 3)


def test_many_trips_travel_to_the_workers_encoded(
    dask: Dask, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi.encoding.MAX_ROWS_IN_MEMORY", 0)
    train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    many = make_rows(features.fit_encoder("compact", train), train, valid)
    job = TrainingJob(SLOW, rounds=2, patience=2)
    with opened(many, dask.address) as executor:
        found = executor.submit(job).result(timeout=60)
    assert found.curve == train_booster(build_matrices(rows), job).curve


def test_a_search_on_a_cluster_equals_the_one_on_this_machine(
    dask: Dask, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    short = replace(spaces.select_space("lossguide"), rounds=12, patience=12)
    monkeypatch.setitem(spaces.SEARCH_SPACES, "lossguide", short)
    said = []
    command = readme_command(f"mlflow run . -e hpo -P scheduler={SCHEDULER}")
    given = f"--{command.partition(' -P ')[2]}".replace(SCHEDULER, dask.address)
    for experiment, scheduler in (("here", []), ("cluster", [given])):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment(experiment))
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)  # left by the step before
        step = ["--source=simulated:600", "--features=compact", "--max_evals=16"]
        hpo.main([*step, "--search_rows=500", *scheduler])
        lines = capsys.readouterr().out.splitlines()
        said.append([line for line in lines if line.startswith(("search", "ensemble"))])
    seen, found, *_ = said[0]
    assert seen.startswith("search: its trials see 500 of ")
    assert found.startswith("search: 16 trials")
    assert len(said[0]) == 5
    assert said[0] == said[1]


def test_trials_whose_workers_die_are_done_by_those_that_come_after(dask: Dask, rows: Any) -> None:
    job = TrainingJob(SLOW, rounds=300, patience=300)
    with opened(rows, dask.address) as executor:
        futures = [executor.submit(job) for _ in range(6)]
        wait_for_busy(dask)
        for worker in dask.workers:  # along with the data that they were sent
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        dask.workers = [dask.start_worker() for _ in range(2)]
        outcomes = [future.result(timeout=120) for future in futures]
    assert [len(outcome.curve) for outcome in outcomes] == [300] * 6
    assert len({outcome.rmse for outcome in outcomes}) == 1
    dask.client.wait_for_workers(2, timeout=60)


def wait_for_busy(dask: Dask) -> None:
    end = time.monotonic() + 60
    while not any(dask.client.processing().values()):
        assert time.monotonic() < end, "no worker ever was busy"
        time.sleep(0.01)


def test_no_rows_stay_with_the_scheduler_where_workers_reach_this_machine(
    dask: Dask, rows: Any
) -> None:
    job = TrainingJob(SLOW, rounds=1, patience=1)
    with opened(rows, dask.address) as executor:
        executor.submit(job).result(timeout=60)
        holding = tasks_holding(dask, rows)
    assert holding  # the job's own task may be among them, or be forgotten already
    assert not any(holding)


def tasks_holding(dask: Dask, rows: Any) -> list[bool]:
    """Return for each task whether the scheduler keeps these rows with it."""
    bytes_of_rows = rows.train.tobytes()

    def look(dask_scheduler: Any) -> list[bool]:  # nested, so that it is sent by value
        from cloudpickle import dumps

        tasks = dask_scheduler.tasks.values()
        return [bytes_of_rows in dumps(task.run_spec) for task in tasks]

    return list(dask.client.run_on_scheduler(look))


def test_rows_go_through_the_scheduler_where_workers_reach_this_machine_not(
    dask: Dask, rows: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(
        held_data, "_find_reachable_address", lambda held: None
    )  # a lambda is sent by value
    job = TrainingJob(SLOW, rounds=1, patience=1)
    with opened(rows, dask.address) as executor:
        found = executor.submit(job).result(timeout=60)
        assert tasks_holding(dask, rows).count(True) == 1
    assert found.curve == train_booster(build_matrices(rows), job).curve
    assert "cannot reach this machine" in capsys.readouterr().out


def test_a_cluster_whose_workers_do_not_come_back_is_given_up(
    dask: Dask, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.5)
    lost = pytest.raises(StorageError, match=r"are all gone for .*; finished trials are kept")
    try:
        with lost, opened(rows, dask.address) as executor:
            future = executor.submit(TrainingJob(SLOW, rounds=1_000_000, patience=1_000_000))
            for worker in dask.workers:
                worker.kill()
            future.result(timeout=60)
    finally:
        dask.workers = [dask.start_worker() for _ in range(2)]
        dask.client.wait_for_workers(2, timeout=60)


def test_no_worker_offers_a_gpu(dask: Dask, rows: Any) -> None:
    refused = pytest.raises(StorageError, match=r"No worker at tcp.* offers a GPU\. .*GPU=1")
    with refused, opened(rows, dask.address, device="cuda"):
        pytest.fail("it went on")


def test_a_scheduler_that_is_not_there_is_told_before_anything_is_made(
    store: Store, capsys: Any
) -> None:
    before = len(store.runs())
    with pytest.raises(SystemExit) as left:
        hpo.main([f"--scheduler=tcp://127.0.0.1:{free_port()}", "--source=simulated:600"])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hpo: No Dask scheduler answers at 'tcp://127.0.0.1:")
    assert len(store.runs()) == before + 1  # its own run, FAILED; no preprocess was started


def test_a_cluster_that_goes_away_ends_the_search_which_goes_on_elsewhere(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("cluster gone"))
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "2s")
    dask = Dask(tmp_path)
    dask.connect()
    step = ["--source=simulated:600", "--features=compact", "--max_evals=5", "--parallelism=1"]
    finish = TrialRuns.finish

    def finish_and_kill(self: TrialRuns, number: int, **given: Any) -> str:
        if number == 2:
            dask.close()
        return finish(self, number, **given)

    monkeypatch.setattr(TrialRuns, "finish", finish_and_kill)
    with pytest.raises(SystemExit) as left:
        hpo.main([*step, f"--scheduler={dask.address}"])
    assert left.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"hpo: The Dask cluster at {dask.address} went away; ")
    # the fourth trial is running, and may end before the workers do
    kept = re.search(r"([34]) of 5 trials are kept\. Go on from there with: mlflow run ", line)
    assert kept
    monkeypatch.setattr(TrialRuns, "finish", finish)
    hpo.main(step)
    said = f"search: 5 trials (0 pruned, 0 failed, {kept[1]} from before), best"
    assert said in capsys.readouterr().out
