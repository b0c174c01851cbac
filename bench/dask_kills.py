"""Kill workers of a Dask cluster while they search and score: it may cost nothing but time.

Their nannies restart them, as they restart workers that exceed their memory limit.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import mlflow
import numpy as np
from distributed import Client, LocalCluster
from mlflow import MlflowClient

from bench import Result
from bench.estimate import simulate
from bench.search_lab import searched
from bench.serving import log_in, train_model
from steps.hpo.executor import open_executor
from steps.score.__main__ import score
from steps.score.month import ScoredMonth, ScoringJob
from storage import StorageError
from storage.tracking.trials import TrialRuns
from taxi import features, spaces
from taxi.boosting import TrainingJob
from taxi.rows import Rows, make_rows
from taxi.schema import Trips

N_WORKERS, STARTS_S = 2, 120  # seconds within which a worker must answer
N_TRIPS, N_TRIALS, N_ROUNDS = 3_000, 12, 40
N_SCORED = 100_000  # trips of a month, so that scoring it takes a worker a while
KILL_AFTER = 3  # trials
MONTHS = [f"2021-{number:02}" for number in range(4, 10)]
N_KILLS = 3  # while scoring: all may hit the same task, which Dask gives up at the fourth
LITTLE, N_MANY_ROWS = "500MB", 6_000_000  # a worker's memory limit, and rows that exceed it


def measure() -> Iterator[Result]:
    """Search and score here, and on a cluster whose workers are killed while they work."""
    train, valid = simulate("2021-01", N_TRIPS), simulate("2021-02", N_TRIPS)
    rows = make_rows(features.fit_encoder("compact", train), train, valid)
    space = spaces.select_space("lossguide")
    space = replace(space, rounds=N_ROUNDS, patience=N_ROUNDS)
    here = searched(space, rows, max_evals=N_TRIALS)
    with cluster() as client, killing_after_trials(client) as killed:
        there = searched(space, rows, max_evals=N_TRIALS, scheduler=address_of(client))
    yield Result(
        f"{len(killed)} workers killed in a search of {N_TRIALS} trials: rounds and RMSE other",
        str(sum([here.n_rounds != there.n_rounds, here.rmse != there.rmse])),
        "0",
    )
    with TemporaryDirectory() as folder, cluster() as client:
        yield score_result(train, valid, Path(folder), client)
    with cluster(memory_limit=LITTLE) as client:
        what = f"a search on workers of {LITTLE}, which is too little"
        yield Result(what, too_little(rows, address_of(client)), "4 workers died")


def score_result(train: Trips, valid: Trips, folder: Path, client: Client) -> Result:
    """Score months here, and on a cluster where a worker is killed during each of the first."""
    uri = log_in(folder, train_model(train, valid, n_rounds=N_ROUNDS), valid)
    run_id = MlflowClient().create_run(mlflow.create_experiment("kills")).info.run_id

    def job(name: str) -> ScoringJob:
        (folder / name).mkdir()
        source, store = f"simulated:{N_SCORED}", mlflow.get_tracking_uri()
        return ScoringJob("green", source, uri, str(folder / name), run_id, store)

    here = list(score(job("here"), MONTHS, "", None))
    there: list[ScoredMonth] = []
    n_kills = 0
    for month in score(job("there"), MONTHS, address_of(client), None):
        there.append(month)
        n_kills += n_kills < N_KILLS and kill_busy(client)
    other = [one for one, two in zip(here, there, strict=True) if numbers(one) != numbers(two)]
    files = set(hashes(folder / "here").items()) ^ set(hashes(folder / "there").items())
    return Result(
        f"{n_kills} workers killed while {len(MONTHS)} months are scored: months and files other",
        f"{len(other)}, {len(files)}",
        "0, 0",
    )


def too_little(rows: Rows, address: str) -> str:
    """Search on rows that exceed every worker's memory; return the error message."""
    many = rows._replace(
        train=np.zeros((N_MANY_ROWS, rows.train.shape[1]), np.float32),
        train_y=np.zeros(N_MANY_ROWS, np.float32),
    )
    job = TrainingJob(dict(spaces.LOSSGUIDE), rounds=1, patience=1)
    try:
        with open_executor(many, scheduler=address, device="cpu", parallelism=0) as executor:
            executor.submit(job).result()
    except StorageError as error:
        return str(error)
    return "it went on"


def numbers(scored: ScoredMonth) -> tuple[Any, ...]:
    """Return the numbers of a scored month that must not change."""
    return scored.month, scored.sha256, scored.tally.n_predicted, scored.tally.total.scores()


def hashes(folder: Path) -> dict[str, str]:
    """Hash the files of a folder, including hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def cluster(memory_limit: str = "0") -> Iterator[Client]:
    """Start a scheduler, and workers that their nannies restart."""
    with (
        LocalCluster(
            n_workers=N_WORKERS,
            threads_per_worker=1,
            memory_limit=memory_limit,
            dashboard_address=None,
        ) as local,
        Client(local.scheduler_address, timeout=STARTS_S, set_as_default=False) as client,
    ):
        client.wait_for_workers(N_WORKERS, timeout=STARTS_S)
        yield client


def address_of(client: Client) -> str:
    """Return the address of a client's scheduler."""
    return str(client.scheduler_info()["address"])


@contextmanager
def killing_after_trials(client: Client) -> Iterator[list[int]]:
    """Kill a busy worker after every KILL_AFTER trials; yield the list of those trials' numbers."""
    killed: list[int] = []
    finish: Callable[..., str] = TrialRuns.finish

    def finish_and_kill(self: TrialRuns, number: int, **given: Any) -> str:
        if number % KILL_AFTER == KILL_AFTER - 1 and kill_busy(client):
            killed.append(number)
        return finish(self, number, **given)

    with patch.object(TrialRuns, "finish", finish_and_kill):
        yield killed


def kill_busy(client: Client) -> bool:
    """Kill a worker that has a task; return whether there was one."""
    with suppress(OSError):
        busy = [worker for worker, tasks in client.processing().items() if tasks]
        pids = client.run(os.getpid, workers=busy[:1], on_error="ignore") if busy else {}
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
            return True
    return False
