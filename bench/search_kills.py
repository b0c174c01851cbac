"""A search killed with SIGKILL again and again: nothing lost, nothing repeated."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run

from bench import Result
from bench.search_lab import run, run_id, store

N_KILLS = 20
N_MORE = 10  # trials that are made after the last kill
ENDLESS = 10_000
LIFE_S = 4  # of which a process is killed at a random moment, counted from its first new trial
STARTS_S = 120  # within which a search makes a trial


class Kept(NamedTuple):
    """What a store holds of a search."""

    finished: dict[int, tuple[str, ...]]  # trial -> its run, parameters and score
    n_repeated: int  # finished runs beyond the first of a trial
    n_running: int


def measure() -> Iterator[Result]:
    """Kill a search on simulated trips again and again, let it end, compare with an unharmed one.

    Three of four processes are killed once they have begun trials; the fourth at any moment of
    its start.
    """
    chance, n_lost = random.Random(0), 0
    with store() as uri:
        given = search_of(uri)
        for number in range(N_KILLS):
            before = kept(uri).finished
            kill_one(uri, given, chance, is_early=number % 4 == 3)
            after = kept(uri).finished
            n_lost += sum(after.get(trial) != content for trial, content in before.items())
        n_trials = max(kept(uri).finished) + 1 + N_MORE
        run(uri, "steps.hpo", *given, f"--max_evals={n_trials}")
        harmed = kept(uri)
    with store() as uri:
        run(uri, "steps.hpo", *search_of(uri), f"--max_evals={n_trials}")
        unharmed = kept(uri)
    n_other = sum(
        harmed.finished[trial][1:] != content[1:] for trial, content in unharmed.finished.items()
    )
    yield Result(
        f"{N_KILLS} kills in a row: of {n_trials} trials lost, repeated, left running, other than "
        "in a search never killed",
        f"{n_lost}, {harmed.n_repeated}, {harmed.n_running}, {n_other}",
        "0, 0, 0, 0",
    )


def search_of(uri: str) -> Sequence[str]:
    """Make the trips of a search; gives what the step hpo is started with."""
    run(uri, "steps.preprocess", "--source=simulated:3000", "--test_months=")
    return (f"--preprocess_run_id={run_id(uri, 'preprocess')}", "--features=compact")


def kill_one(uri: str, given: Sequence[str], chance: random.Random, *, is_early: bool) -> None:
    """Start the search and kill it: anywhere in its start, or after it has begun new trials."""
    n_before = len(trials(uri))
    process = subprocess.Popen(
        [sys.executable, "-m", "steps.hpo", *given, f"--max_evals={ENDLESS}"],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if not is_early:
            wait_for_more(uri, n_before, process)
        time.sleep(chance.uniform(0, LIFE_S))
        if process.poll() is not None:
            raise RuntimeError(f"the search ended by itself with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def wait_for_more(uri: str, n_before: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a search has begun a trial that was not there before."""
    end = time.monotonic() + STARTS_S
    while len(trials(uri)) <= n_before:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("the search began no trial")
        time.sleep(0.2)


def kept(uri: str) -> Kept:
    """Read all that a store holds of the only search in it."""
    found: dict[int, tuple[str, ...]] = {}
    states = Counter(trial.info.status for trial in trials(uri))
    for trial in trials(uri):
        if trial.info.status == "FINISHED":
            content = (str(sorted(trial.data.params.items())), str(trial.data.metrics["rmse"]))
            found[int(trial.data.tags["trial"])] = (trial.info.run_id, *content)
    return Kept(found, states["FINISHED"] - len(found), states["RUNNING"])


def trials(uri: str) -> list[Run]:
    """List the runs of trials in a store."""
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, "tags.trial != ''", max_results=10_000))
