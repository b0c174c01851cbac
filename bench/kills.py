"""Kill `main` with SIGKILL at random moments: nothing may be lost, doubled or need repair.

KILLS=8 python -m bench kills

kills it eight times instead of 40, which take an hour on two cores.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run

from bench import ROOT, Result
from storage.tracking import experiments, tags

N_KILLS = int(os.environ.get("KILLS", "40"))
N_IN_A_ROW = 8  # kills of one pipeline, which may then finish
# metrics of a resumed search that depend on how it was run
HOW = {"train_seconds", "n_trials_recorded"}
MAIN = ("steps.main", "--source=simulated:1000", "--models=mean", "--max_evals=3")


def is_how(metric: str) -> bool:
    """Whether a metric depends on how a run went: its cost, or where a search was resumed."""
    return metric in HOW or metric.startswith(tags.SYSTEM)


class Harm(NamedTuple):
    """The damage that the kills of a pipeline did to its store."""

    n_other: int  # results missing, or different from those of a pipeline that was never killed
    n_double: int
    n_running: int
    n_repairs: int  # times that the same command alone could not resume


def measure() -> Iterator[Result]:
    """Kill `main` and resume it with the same command, in one store after the other.

    Of four kills one hits only the process of main, one a commit of the store, and two the process
    with all its children. They come within the time of the first third of a pipeline: since
    finished steps are reused, later steps get hit as well.
    """
    chance, n_kills = random.Random(0), 0
    harms: list[Harm] = []
    with TemporaryDirectory() as folder:
        template = make_store(Path(folder, "template"))
        with copy_of(template, Path(folder, "0")) as uri:
            start = time.monotonic()
            process = begin(uri)
            if process.wait():
                raise RuntimeError("main does not end well where nobody kills it")
            seconds, whole = time.monotonic() - start, results(uri)
        while n_kills < N_KILLS:
            with copy_of(template, Path(folder, str(len(harms) + 1))) as uri:
                n_most = min(N_IN_A_ROW, N_KILLS - n_kills)
                n, n_repairs = harass(uri, chance, seconds / 3, n_kills, n_most)
                harms.append(find_harm(uri, whole, n_repairs))
                n_kills += n
            print(f"{n_kills} kills: {harms[-1]}", file=sys.stderr, flush=True)
    total = ", ".join(str(sum(numbers)) for numbers in zip(*harms, strict=True))
    yield Result(
        f"{n_kills} kills of `main` in {len(harms)} stores: results other than in one never "
        "killed, made twice, left RUNNING, mended by hand",
        total,
        "0, 0, 0, 0",
    )


def make_store(folder: Path) -> Path:
    """Make an empty store, to be copied: that is faster than making one each time."""
    folder.mkdir()
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder


@contextmanager
def copy_of(template: Path, folder: Path) -> Iterator[str]:
    """Yield the URI of a copy of the store, and delete the copy at the end."""
    shutil.copytree(template, folder)
    uri = f"sqlite:///{folder}/mlflow.db"
    where = (folder / "artifacts").as_uri()
    MlflowClient(uri).create_experiment(experiments.DEFAULT, artifact_location=where)
    try:
        yield uri
    finally:
        shutil.rmtree(folder)


def begin(uri: str, words: Sequence[str] = MAIN) -> "subprocess.Popen[bytes]":
    """Start a step in its own process group; its output goes to a file beside the store."""
    with log_of(uri).open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            env=os.environ | {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def log_of(uri: str) -> Path:
    """Return the file with the output of the step started last."""
    return Path(uri.removeprefix("sqlite:///")).with_name("log")


def harass(
    uri: str,
    chance: random.Random,
    within_s: float,
    kind: int,
    n_most: int,
    words: Sequence[str] = MAIN,
) -> tuple[int, int]:
    """Kill a pipeline up to n_most times, then let it finish; return the kills and the repairs."""
    n_kills = n_repairs = 0
    while True:
        process = begin(uri, words)
        is_killed = n_kills < n_most and kill(uri, process, chance, within_s, kind + n_kills)
        n_kills += is_killed
        if is_killed:
            continue
        if process.wait() == 0:
            return n_kills, n_repairs
        n_repairs += 1
        print(log_of(uri).read_text()[-3000:], file=sys.stderr, flush=True)
        if n_repairs > N_IN_A_ROW:
            return n_kills, n_repairs


def kill(
    uri: str,
    process: "subprocess.Popen[bytes]",
    chance: random.Random,
    within_s: float,
    kind: int,
) -> bool:
    """Kill a process at a random moment; return False if it has ended before."""
    end = time.monotonic() + chance.uniform(0, within_s)
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    if kind % 4 == 1:
        wait_for_commit(uri, process)
    if process.poll() is not None:
        return False
    if kind % 4 == 3:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def wait_for_commit(uri: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the store is writing a commit, that is, until its journal file exists."""
    journal = Path(f"{uri.removeprefix('sqlite:///')}-journal")
    while not journal.exists() and process.poll() is None:
        time.sleep(0.0001)


def all_runs(uri: str) -> list[Run]:
    """List the runs in a store."""
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, max_results=10_000))


def results(uri: str) -> dict[str, set[str]]:
    """Read the results of a pipeline: run or champion -> its distinct values."""
    values: dict[str, set[str]] = defaultdict(set)
    for run in all_runs(uri):
        if run.info.status == "FINISHED":
            metrics = {name: value for name, value in run.data.metrics.items() if not is_how(name)}
            values[run.info.run_name].add(str(sorted(metrics.items())))
    for version in MlflowClient(uri, uri).search_model_versions():
        about = {name: version.tags.get(name) for name in ("model_sha256", "outcome", "rmse_test")}
        values["version"].add(f"{about} {version.aliases}")
    return values


def find_harm(uri: str, whole: dict[str, set[str]], n_repairs: int) -> Harm:
    """Compare a store with that of a pipeline that was never killed."""
    found, runs = results(uri), all_runs(uri)
    other = {name for name in whole | found if whole.get(name) != found.get(name)}
    for name in sorted(other):
        print(f"{name}: {found.get(name)} for {whole.get(name)}", file=sys.stderr, flush=True)
    made: Counter[tuple[str | None, ...]] = Counter(
        (run.data.tags.get("step_key"), run.data.tags.get("search_key"), run.data.tags.get("trial"))
        for run in runs
        if run.info.status == "FINISHED" and {"step_key", "trial"} & set(run.data.tags)
    )
    versions = MlflowClient(uri, uri).search_model_versions()
    made.update((version.tags.get("model_sha256"),) for version in versions)
    twice = {key: n for key, n in made.items() if n > 1}
    for key, n in twice.items():
        print(f"{n} times: {key}", file=sys.stderr, flush=True)
    n_double = sum(n - 1 for n in twice.values())
    n_running = sum(run.info.status == "RUNNING" for run in runs)
    return Harm(len(other), n_double, n_running, n_repairs)
