"""The search as a step: what it leaves behind, however it ends, and how it is resumed."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from steps.hpo import __main__ as hpo
from storage.checkout import ROOT
from storage.tracking import artifacts, models, runs
from taxi import boosting
from taxi.features import fit_encoder
from taxi.recipes import WEIGHT_WITHOUT_DISTANCE, Recipe
from taxi.spaces import SEARCH_SPACES
from tests.conftest import simulated_trips
from tests.servers import free_port, wait_for
from tests.stores import EXPERIMENT, Store

# small leaves and few rounds: the points themselves do not matter here
SEED = "7"
SMALL = ["--features=compact", "--parallelism=1", f"--seed={SEED}"]
N = 12


@pytest.fixture(scope="module")
def preprocessed(initialised_store: Store) -> str:
    """Return the id of the preprocess run that all searches here build on."""
    given = {"MLFLOW_TRACKING_URI": initialised_store.uri, "MLFLOW_EXPERIMENT_NAME": EXPERIMENT}
    before = initialised_store.runs()
    run("-m", "steps.preprocess", "--source=simulated:600", **given)
    (run_id,) = set(initialised_store.runs()) - set(before)
    return run_id


def run(*command: str, returncode: int = 0, **env: str) -> str:
    """Run a step in its own process; return its output."""
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | env, capture_output=True, text=True
    )
    assert done.returncode == returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def trials_of(search: Run) -> list[Run]:
    """Return all runs of this search's trials, from whichever process."""
    key = search.data.tags["search_key"]
    found = MlflowClient().search_runs(
        [search.info.experiment_id], f"tags.search_key = '{key}'", max_results=500
    )
    return [run for run in found if "trial" in run.data.tags]


def last_hpo() -> Run:
    """The hpo run that started last."""
    client = MlflowClient()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    order = ["attributes.start_time DESC"]
    return client.search_runs(ids, "tags.step = 'hpo'", max_results=1, order_by=order)[0]


def table(run_id: str) -> list[dict[str, str]]:
    lines = artifacts.read_text(run_id, "trials.csv").splitlines()
    return list(csv.DictReader(lines))


def told(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the columns in which two searches must agree to the last digit."""
    return [{k: v for k, v in row.items() if k not in ("run_id", "train_seconds")} for row in rows]


def results_of(run: Run) -> dict[str, float]:
    """Return a run's metrics, without those of its cost."""
    return {k: v for k, v in run.data.metrics.items() if not k.startswith("system/")}


@pytest.fixture(scope="module")
def whole(initialised_store: Store, preprocessed: str) -> Run:
    """An undisturbed search, in its own experiment."""
    name = initialised_store.experiment("whole")
    given = {"MLFLOW_TRACKING_URI": initialised_store.uri, "MLFLOW_EXPERIMENT_NAME": name}
    run(
        "-m",
        "steps.hpo",
        f"--preprocess_run_id={preprocessed}",
        *SMALL,
        f"--max_evals={N}",
        **given,
    )
    client = MlflowClient(initialised_store.uri)
    experiment = client.get_experiment_by_name("whole")
    (found,) = client.search_runs([experiment.experiment_id], "tags.step = 'hpo'")
    return found


def test_a_search_shows_its_trials_its_history_and_what_mattered(store: Store, whole: Run) -> None:
    paths = {item.path for item in MlflowClient().list_artifacts(whole.info.run_id)}
    pictures = {"search.png", "parallel_coordinates.png", "parameter_importance.png"}
    assert pictures | {"trials.csv"} <= paths
    rows = table(whole.info.run_id)
    assert [int(row["trial"]) for row in rows] == list(range(N))
    best = min(rows, key=lambda row: float(row["rmse"]))
    assert whole.data.tags["best_trial"] == best["trial"]
    history = MlflowClient().get_metric_history(whole.info.run_id, "best_rmse")
    history.sort(key=lambda point: point.step)
    assert [point.step for point in history] == list(range(N))
    values = [point.value for point in history]
    assert values == sorted(values, reverse=True)
    assert values[-1] == float(best["rmse"])
    gained = float(rows[0]["rmse"]) - float(best["rmse"])
    assert whole.data.metrics["search_gain"] == pytest.approx(gained)
    assert whole.data.metrics["seed_noise"] > 0
    for row in rows:
        trial = mlflow.get_run(row["run_id"])
        assert trial.data.metrics["rmse"] == float(row["rmse"])
        assert trial.data.params["max_leaves"] == row["max_leaves"]
        cost = ("system/cpu_seconds", "system/wall_seconds", "system/peak_memory_megabytes")
        assert min(trial.data.metrics[name] for name in cost) > 0
        assert f"RMSE {float(row['rmse']):.3f} min" in trial.data.tags["mlflow.note.content"]
    page = whole.data.tags["mlflow.note.content"]
    assert page.startswith(f"**RMSE {whole.data.metrics['rmse']:.3f} min** on 2021-02 (valid)")
    assert f"{N} trials (" in page
    assert "min alone on trips with a distance. Go on" in page
    assert f"-P max_evals={2 * N}" in page


def ensemble_of(search: Run) -> Run:
    """The child run of a search that holds its model."""
    below = runs.children(search.info.run_id)
    (found,) = (run for run in below if run.info.run_name == "ensemble")
    return found


def boosters_of(search: Run) -> list[dict[str, str]]:
    lines = artifacts.read_text(ensemble_of(search).info.run_id, "boosters.csv").splitlines()
    return list(csv.DictReader(lines))


def digest_of(search: Run) -> str:
    """Return the hash of the files of a search's model."""
    uri = ensemble_of(search).data.tags["model_uri"]
    return models.digest(mlflow.pyfunc.load_model(uri), uri)


def test_the_model_is_boosters_of_the_best_trials_and_of_the_first_ones_other_seeds(
    store: Store, whole: Run
) -> None:
    ensemble, boosters = ensemble_of(whole), boosters_of(whole)
    assert ensemble.info.run_name == "ensemble"
    paths = {item.path for item in MlflowClient().list_artifacts(ensemble.info.run_id)}
    assert {"evaluation.png", "reliability.png", "recipe.json"} <= paths
    with_distance = [row for row in boosters if row["distance"] == "known"]
    assert with_distance == boosters[: len(with_distance)]
    assert 1 <= len(with_distance) <= SEARCH_SPACES["lossguide"].n_boosters
    assert float(with_distance[0]["rmse"]) <= whole.data.metrics["best_rmse"]
    trials = {row["trial"]: row for row in table(whole.info.run_id)}
    for booster in with_distance:
        trial = trials[booster["trial"]]
        assert booster["objective"] == trial["objective"]
        assert booster["max_leaves"] == trial["max_leaves"]
        if booster["seed"] == SEED:  # trained by a trial of the search
            assert booster["rmse"] == trial["rmse"]
            assert int(booster["rounds"]) == int(trial["best_round"]) + 1
        else:
            assert booster["trial"] == "0"
            assert booster["rmse"] != trial["rmse"]
    told = {(booster["trial"], booster["seed"]) for booster in with_distance}
    assert len(told) == len(with_distance)
    assert {seed for _, seed in told} > {SEED}
    assert ensemble.data.params["max_leaves"] == with_distance[0]["max_leaves"]


def test_the_courses_model_is_its_best_trial_scored_after_every_round(
    store: Store, preprocessed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("course"))
    hpo.main(
        [f"--preprocess_run_id={preprocessed}", *SMALL, "--search_space=seed", "--max_evals=2"]
    )
    search = last_hpo()
    assert search.data.metrics["seed_noise"] == 0  # nothing in that space is random
    (booster,) = boosters_of(search)
    assert (booster["trial"], booster["seed"]) == (search.data.tags["best_trial"], SEED)
    for trial in trials_of(search):
        curve = MlflowClient().get_metric_history(trial.info.run_id, "rmse_by_round")
        assert sorted(point.step for point in curve) == list(range(len(curve)))


def test_trips_without_a_distance_get_a_booster_of_the_best_point_of_each_objective(
    store: Store, whole: Run
) -> None:
    trials = [row for row in table(whole.info.run_id) if row["state"] == "finished"]
    best: dict[str, str] = {}
    for row in sorted(trials, key=lambda row: float(row["rmse"])):
        best.setdefault(row["objective"], row["trial"])
    without_distance = [row for row in boosters_of(whole) if row["distance"] == "none"]
    assert {row["objective"]: row["trial"] for row in without_distance} == best
    assert len(without_distance) == 2


def test_the_recipe_tells_the_boosters_and_what_they_were_trained_with(
    store: Store, whole: Run
) -> None:
    text = artifacts.read_text(ensemble_of(whole).info.run_id, "recipe.json")
    recipe, rows = Recipe.restore(json.loads(text)), boosters_of(whole)
    assert (recipe.features, recipe.seed, recipe.half_life) == ("compact", 7, 8.0)
    assert recipe.weight_without_distance == WEIGHT_WITHOUT_DISTANCE
    assert recipe.max_bin == SEARCH_SPACES["lossguide"].max_bin
    told = [*recipe.members, *recipe.members_without_distance]
    assert [str(member.rounds) for member in told] == [row["rounds"] for row in rows]
    assert [str(member.parameters["objective"]) for member in told] == [
        row["objective"] for row in rows
    ]


def test_a_search_killed_again_and_again_equals_the_one_that_was_not(
    store: Store, preprocessed: str, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("killed"))
    step = ["hpo", f"--preprocess_run_id={preprocessed}", *SMALL, f"--max_evals={N}"]
    # a search makes about 49 calls, four for each trial; bench kills tries random moments
    for moment in ("6", "40"):
        run("-m", "tests.steps.disturbed", moment, "kill", *step, returncode=-signal.SIGKILL)
    run("-m", f"steps.{step[0]}", *step[1:])
    again = last_hpo()
    assert again.info.status == "FINISHED"
    assert told(table(again.info.run_id)) == told(table(whole.info.run_id))
    assert results_of(again) == results_of(whole) | {"n_trials_recorded": ANY}
    # its boosters are of trials that an earlier process finished, so they are retrained
    assert boosters_of(again) == boosters_of(whole)
    assert digest_of(again) == digest_of(whole)
    mine = trials_of(again)
    finished = [int(t.data.tags["trial"]) for t in mine if t.info.status == "FINISHED"]
    assert sorted(finished) == list(range(N))  # none lost, none repeated
    assert {t.info.status for t in mine} <= {"FINISHED", "KILLED"}


def test_a_search_asked_for_more_does_only_what_is_missing(
    store: Store, preprocessed: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("extended"))
    step = [f"--preprocess_run_id={preprocessed}", *SMALL]
    hpo.main([*step, "--max_evals=3"])
    first = last_hpo()
    hpo.main([*step, "--max_evals=5", "--parallelism=2"])
    second = last_hpo()
    assert (
        "search: 5 trials (0 pruned, 0 failed, 3 from before), best rmse" in capsys.readouterr().out
    )
    assert table(second.info.run_id)[:3] == table(first.info.run_id)
    assert len(trials_of(second)) == 5
    hpo.main([*step, "--max_evals=5", "--seed=8"])
    assert len(trials_of(last_hpo())) == 5
    assert "from before" not in capsys.readouterr().out


def test_a_search_told_to_stop_keeps_what_is_finished_and_says_how_to_go_on(
    store: Store, preprocessed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("stopped"))
    step = ["hpo", f"--preprocess_run_id={preprocessed}", *SMALL, f"--max_evals={N}"]
    # a call of the sixth trial or of one beside it: each trial makes four calls
    said = run("-m", "tests.steps.disturbed", "23", "terminate", *step, returncode=130)
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "hpo: interrupted"
    stopped = last_hpo()
    assert stopped.info.status == "KILLED"
    states = [trial.info.status for trial in trials_of(stopped)]
    assert set(states) <= {"FINISHED", "KILLED"}
    reasons = [t.data.tags.get("failure") for t in trials_of(stopped) if t.info.status == "KILLED"]
    assert set(reasons) == {"interrupted"}
    n_kept = states.count("FINISHED")
    found = re.search(r"(\d+) of 12 trials are kept. Go on from there with: (mlflow run .*)", said)
    assert int(found[1]) == n_kept >= 4
    assert n_kept < len(states) < N
    given = shlex.split(found[2])
    wanted = {f"{word[2:]}" for word in step[1:]}
    assert wanted <= {word for word in given if "=" in word}
    arguments = [f"--{word}" for word in given if "=" in word]
    assert f", {n_kept} from before), best" in run("-m", "steps.hpo", *arguments)


def test_a_trial_that_raises_is_failed_with_its_reason_and_tried_again_next_time(
    store: Store, preprocessed: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("failing"))
    fit, n_fits = boosting.train_booster, 0

    def failing(*arguments: Any) -> Any:
        nonlocal n_fits
        n_fits += 1
        if n_fits == 2:
            raise MemoryError("no room for trees")
        return fit(*arguments)

    monkeypatch.setattr("steps.hpo.executor.train_booster", failing)
    step = [f"--preprocess_run_id={preprocessed}", *SMALL, "--max_evals=4"]
    hpo.main(step)
    said = capsys.readouterr()
    assert "search: 4 trials (0 pruned, 1 failed), best" in said.out
    assert "trial 1 failed: MemoryError: no room for trees" in said.err
    search = last_hpo()
    (failed,) = (t for t in trials_of(search) if t.info.status == "FAILED")
    assert failed.data.tags["failure"] == "MemoryError: no room for trees"
    assert table(search.info.run_id)[1]["failure"] == "MemoryError: no room for trees"
    hpo.main(step)
    assert "search: 4 trials (0 pruned, 0 failed, 3 from before), best" in capsys.readouterr().out


def test_a_search_of_which_too_much_fails_fails_with_the_reason(
    store: Store, preprocessed: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("failing altogether"))

    def failing(*arguments: Any) -> Any:
        raise MemoryError("no room for trees")

    monkeypatch.setattr("steps.hpo.executor.train_booster", failing)
    with pytest.raises(SystemExit) as left:
        hpo.main([f"--preprocess_run_id={preprocessed}", *SMALL, "--max_evals=10"])
    assert left.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hpo: 4 trials failed, more than the 3 that a search of 10 may lose.")
    assert "MemoryError: no room for trees" in line
    assert last_hpo().info.status == "FAILED"


def test_no_trial_starts_after_the_time_given(
    store: Store, preprocessed: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("short of time"))
    now = iter(range(0, 10_000, 25))
    monkeypatch.setattr("steps.hpo.search.time.monotonic", lambda: next(now))
    step = [f"--preprocess_run_id={preprocessed}", *SMALL, "--max_evals=10"]
    hpo.main([*step, "--max_minutes=1"])
    # the clock is read as the search starts and before each trial: 25 and 50 s are within a minute
    assert "search: 2 trials (0 pruned, 0 failed), best" in capsys.readouterr().out
    hpo.main([*step, "--max_evals=3"])
    assert "search: 3 trials (0 pruned, 0 failed, 2 from before), best" in capsys.readouterr().out


def test_a_warm_start_tries_the_best_points_of_earlier_searches_first(
    store: Store, preprocessed: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("warm"))
    # with them, the best of few trials would be one of the points that every search begins with
    space = replace(SEARCH_SPACES["lossguide"], first=())
    monkeypatch.setitem(SEARCH_SPACES, "lossguide", space)
    step = [f"--preprocess_run_id={preprocessed}", "--features=compact", "--parallelism=1"]
    hpo.main([*step, "--seed=7", "--max_evals=3"])
    earlier = last_hpo()
    warm = [*step, "--warm_start=true"]
    hpo.main([*warm, "--seed=9", "--max_evals=2"])
    assert "warm start from 1 earlier best point" in capsys.readouterr().out
    begun = last_hpo()
    point = space.point(json.loads(earlier.data.tags["best_point"]))
    assert json.loads(begun.data.tags["warm_start"]) == [point]
    first = table(begun.info.run_id)[0]
    tried = space.parameters(0, point)
    assert first["objective"] == tried.pop("objective")
    assert {name: float(first[name]) for name in tried} == tried
    # resumed, it keeps the points that it began with, though a later search has found another
    hpo.main([*warm, "--seed=10", "--max_evals=1"])
    assert "search: 1 trial (0 pruned, 0 failed), best" in capsys.readouterr().out
    hpo.main([*warm, "--seed=9", "--max_evals=3"])
    assert "search: 3 trials (0 pruned, 0 failed, 2 from before)" in capsys.readouterr().out


def test_older_trips_count_less_by_a_half_life_and_that_is_another_search(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("half life"))
    step = ["--source=simulated:600", "--train_months=2020-12,2021-01", *SMALL, "--max_evals=2"]
    searches = []
    for months in (0, 1):
        hpo.main([*step, f"--half_life={months}"])
        searches.append(last_hpo())
    assert "from before" not in capsys.readouterr().out
    assert len({search.data.tags["search_key"] for search in searches}) == 2
    assert len({digest_of(search) for search in searches}) == 2


def test_trials_of_a_sample_make_a_model_of_all_trips_and_say_what_it_would_cost(
    store: Store, preprocessed: str, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("sample"))
    trained: list[int] = []  # rows of each matrix that boosters were trained on

    def build(rows: Any, folder: str) -> Any:
        trained.append(len(rows.train_y))
        return boosting.build_matrices(rows, folder)

    monkeypatch.setattr("steps.hpo.executor.build_matrices", build)
    there = mlflow.get_run(preprocessed).data.metrics
    n_train, n_valid = (int(there[f"n_trips_{split}"]) for split in ("train", "valid"))
    step = [f"--preprocess_run_id={preprocessed}", *SMALL, "--max_evals=2"]
    hpo.main([*step, "--search_rows=400"])
    sampled = last_hpo()
    metrics, note = sampled.data.metrics, sampled.data.tags["mlflow.note.content"]
    assert metrics["n_seen_train"] == metrics["n_seen_valid"] == 400
    of_trials, without_miles, of_model = trained[:3]
    assert of_trials <= 400 < of_model <= without_miles == n_train
    saw = f"Trials saw 400 of {n_train} train trips, 400 of {n_valid} valid trips"
    assert f"{saw}; the model is of all." in note
    assert f"on the sample alone: it would cost {metrics['sample_cost']:.4f} min" in note
    trials = {row["trial"]: row for row in table(sampled.info.run_id)}
    for row in boosters_of(sampled):
        if row["distance"] == "known":  # a trial's point, retrained on all trips
            assert row["max_leaves"] == trials[row["trial"]]["max_leaves"]
            assert row["rmse"] != trials[row["trial"]]["rmse"]
    # a bound that leaves nothing out is no bound: the search without one resumes from there
    hpo.main([*step, f"--search_rows={max(n_train, n_valid)}"])
    unbounded = last_hpo().data
    assert unbounded.tags["search_key"] == whole.data.tags["search_key"]
    assert unbounded.tags["search_key"] != sampled.data.tags["search_key"]
    assert "Trials saw" not in unbounded.tags["mlflow.note.content"]
    assert not {"n_seen_train", "sample_cost"} & set(unbounded.metrics)


# --- a server that goes away


class Server:
    """An MLflow server on the tests' store, which may be killed and restarted."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.command = shlex.join(
            [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                *("--backend-store-uri", store.uri, "--port", str(self.port)),
                # what it has written must be readable without the server
                *("--no-serve-artifacts", "--default-artifact-root", (store.folder / "a").as_uri()),
            ]
        )
        self.process = subprocess.Popen(
            shlex.split(self.command), stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.restarted = folder / "group"

    def group(self) -> int:
        """The process group of the server, which may have been restarted."""
        return int(self.restarted.read_text()) if self.restarted.exists() else self.process.pid

    def env(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "SERVER_GROUP": str(self.group()),
            "RESTART": f"exec {self.command} >/dev/null 2>&1",
            "RESTARTED": str(self.restarted),
        }

    def close(self) -> None:
        for group in {self.process.pid, self.group()}:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(initialised_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for both tests: the first restarts it, the second kills it for good."""
    server = Server(initialised_store, tmp_path_factory.mktemp("server"))
    wait_for(f"{server.uri}/health", server.process)
    yield server
    server.close()


def test_a_server_that_goes_away_for_a_while_is_waited_for(
    server: Server, preprocessed: str, store: Store, whole: Run
) -> None:
    env = server.env() | {
        "MLFLOW_EXPERIMENT_NAME": "waiting",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    }
    step = ["hpo", f"--preprocess_run_id={preprocessed}", *SMALL, "--max_evals=5"]
    run("-m", "tests.steps.disturbed", "10", "restart_server", *step, **env)
    waited = last_hpo()
    assert waited.info.status == "FINISHED"
    known = {row["trial"]: row for row in table(whole.info.run_id)[:5]}
    trials = {trial.data.tags["trial"]: trial for trial in trials_of(waited)}
    assert set(trials) == set(known)
    for number, trial in trials.items():
        assert trial.info.status == "FINISHED"
        assert trial.data.metrics["rmse"] == float(known[number]["rmse"])
        assert trial.data.params["subsample"] == known[number]["subsample"]


def test_a_server_that_stays_away_ends_the_search_which_goes_on_later(
    server: Server, preprocessed: str, store: Store
) -> None:
    env = server.env() | {"MLFLOW_EXPERIMENT_NAME": "gone", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    step = ["hpo", f"--preprocess_run_id={preprocessed}", *SMALL, "--max_evals=5"]
    said = run("-m", "tests.steps.disturbed", "14", "kill_server", *step, returncode=2, **env)
    line = said.splitlines()[-1]
    assert line.startswith(
        f"hpo: The MLflow server at {server.uri} went away and did not come back"
    )
    assert "Traceback" not in said
    states = [trial.info.status for trial in trials_of(last_hpo())]
    assert "KILLED" not in states  # the server was gone, so nothing could be written
    n_kept = states.count("FINISHED")
    assert n_kept >= 2
    assert f"{n_kept} of 5 trials are kept. Go on from there with: mlflow run " in line
    again = run("-m", "steps.hpo", *step[1:], MLFLOW_EXPERIMENT_NAME="gone")
    assert f"search: 5 trials (0 pruned, 0 failed, {n_kept} from before), best" in again
    assert "RUNNING" not in [trial.info.status for trial in trials_of(last_hpo())]


def test_months_that_the_school_calendar_does_not_reach_are_told_where_it_is_looked_at(
    capsys: Any,
) -> None:
    trips, months = simulated_trips("2021-02"), {"train": ["2026-11", "2026-12"], "valid": []}
    for name, said in (("full", "2026-12: the school calendar cover"), ("compact", "")):
        hpo.print_uncovered_months(fit_encoder(name, trips), months)
        assert capsys.readouterr().out[:34] == said
    hpo.print_uncovered_months(fit_encoder("full", trips), {"train": ["2026-11"]})
    assert capsys.readouterr().out == ""
