"""Whatever a user gets wrong gives a one-line error, fails the run and harms nothing else."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from storage.checkout import ROOT
from storage.tracking import artifacts
from taxi.simulation import month_batches
from tests.entry import entry
from tests.stores import EXPERIMENT, Store

JANUARY = "green_tripdata_2021-01.parquet"
SIMULATED = "--source=simulated:300"


@pytest.fixture(scope="module")
def preprocessed(initialised_store: Store) -> str:
    """Return the id of a finished run of preprocess, which no later failure may change."""
    given = {"MLFLOW_TRACKING_URI": initialised_store.uri, "MLFLOW_EXPERIMENT_NAME": EXPERIMENT}
    before = initialised_store.runs()
    done = run("-m", "steps.preprocess", SIMULATED, **given)
    assert done.returncode == 0, done.stderr
    (run_id,) = set(initialised_store.runs()) - set(before)
    return run_id


@pytest.fixture
def refused(store: Store, preprocessed: str, capfd: pytest.CaptureFixture[str]) -> "Refused":
    return Refused(store, preprocessed, capfd)


class Refused:
    """Runs a step that must refuse its input; returns its one line of output."""

    def __init__(self, store: Store, preprocessed: str, capfd: Any) -> None:
        self.store, self.preprocessed, self.capfd = store, preprocessed, capfd
        self.before, self.registered = store.runs(), store.registered()
        assert self.before[preprocessed]["info"]["status"] == "FINISHED"

    def make_run(self, status: str, **tags: str) -> str:
        """Make a run in the store, as another program might."""
        client = MlflowClient(self.store.uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        run_id = client.create_run(experiment.experiment_id, tags=tags).info.run_id
        if status != "RUNNING":
            client.set_terminated(run_id, status)
        self.before = self.store.runs()
        return str(run_id)

    def __call__(self, step: str, *arguments: str, n_runs: int = 1) -> str:
        with pytest.raises(SystemExit) as left:
            entry(step).main(list(arguments))
        assert left.value.code == 2
        (line,) = self.capfd.readouterr().err.splitlines()
        assert line.startswith(f"{step}: ")
        made = self.new_runs()
        assert len(made) == n_runs
        assert {run["info"]["status"] for run in made} <= {"FAILED"}
        assert {run["data"]["tags"]["failure"] for run in made} <= {line.partition(": ")[2]}
        return line

    def new_runs(self) -> list[dict[str, Any]]:
        """Return the new runs, after checking that nothing else has changed."""
        after = self.store.runs()
        assert {run_id: after[run_id] for run_id in self.before} == self.before
        assert self.store.registered() == self.registered
        return [run for run_id, run in after.items() if run_id not in self.before]


# --- parameters


@pytest.mark.parametrize(
    ("step", "argument", "said"),
    [
        ("preprocess", "--foo=1", ["--foo=1", "--help"]),
        ("preprocess", "--tax=green", ["--tax=green", "--help"]),
        ("hpo", "--max_evals=0", ["max_evals", "at least 1", "'0'"]),
        ("hpo", "--max_evals=-1", ["max_evals", "at least 1", "'-1'"]),
        ("main", "--max_evals=ten", ["max_evals", "at least 1", "'ten'"]),
        ("main", "--parallelism=1.5", ["parallelism", "at least 0", "'1.5'"]),
        ("baseline", "--seed=", ["seed", "at least 0", "''"]),
    ],
)
def test_a_parameter_that_cannot_be_parsed(
    refused: Refused, step: str, argument: str, said: list[str]
) -> None:
    line = refused(step, argument, n_runs=0)
    assert [words for words in said if words not in line] == []


@pytest.mark.parametrize(
    ("step", "arguments", "said"),
    [
        ("preprocess", ["--train_months=2021-13"], ["'2021-13'", "YYYY-MM"]),
        ("preprocess", ["--train_months=2021-06..2021-01"], ["backwards", "2021-01..2021-06"]),
        ("preprocess", ["--valid_months=2021-01"], ["2021-01", "train_months", "valid_months"]),
        ("preprocess", ["--test_months=2021-02"], ["2021-02", "test_months", "valid_months"]),
        ("preprocess", ["--train_months="], ["train_months is empty", "-P train_months="]),
        ("preprocess", ["--taxi=purple"], ["'purple'", "green", "yellow"]),
        ("preprocess", ["--source=simulated:0"], ["'simulated:0'", "simulated:<n_trips>"]),
        ("preprocess", ["--source=ftp://host/x"], ["'ftp://host/x'", "simulated", "https://"]),
        ("baseline", ["--models=mean,lazzo"], ["'lazzo'", "lasso"]),
        ("hpo", ["--search_space=tiny"], ["'tiny'", "lossguide"]),
        ("hpo", ["--features=none"], ["'none'", "full"]),
        ("hpo", ["--device=tpu"], ["'tpu'", "cpu", "cuda"]),
        ("main", ["--taxi=purple"], ["'purple'", "green", "yellow"]),
        ("main", ["--models=lazzo"], ["'lazzo'", "lasso"]),
        ("main", ["--search_space=tiny"], ["'tiny'", "lossguide"]),
        ("main", ["--features=none"], ["'none'", "full"]),
        ("main", ["--device=tpu"], ["'tpu'", "cpu", "cuda"]),
        ("main", ["--hpo_run_id=gone"], ["'gone'", "hpo_run_id"]),
        ("main", ["--model_name=a/b"], ["'a/b'", "without / and :"]),
        ("main", ["--judge_by=guessed"], ["'guessed'", "metered", "missing", "planned"]),
        ("main", ["--refit=test"], ["'test'", "train", "train_valid"]),
        ("main", ["--refit_workers=2"], ["refit_workers=2", "-P scheduler="]),
        ("main", ["--steps=preprocess,hop"], ["['hop']", "'all'", "'hpo'"]),
        ("main", ["--steps= ,"], ["steps is empty", "'preprocess'"]),
        ("main", ["--steps=hpo"], ["leaves out preprocess, which hpo", "preprocess_run_id=<id>"]),
        ("main", ["--steps=preprocess,hpo,register"], ["leaves out baseline, which register"]),
        ("register", ["--refit="], ["''", "train", "train_valid"]),
        ("register", ["--judge_by="], ["''", "metered", "missing", "planned"]),
        ("register", ["--model_name="], ["''", "-P model_name="]),
        ("register", ["--device=tpu"], ["'tpu'", "cpu", "cuda"]),
        ("register", ["--test_months="], ["test months", "-P test_months=YYYY-MM"]),
        ("register", ["--test_months= "], ["test months", "-P test_months=YYYY-MM"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_value_that_means_nothing_is_refused_before_any_other_step_starts(
    refused: Refused, step: str, arguments: list[str], said: list[str]
) -> None:
    line = refused(step, SIMULATED, *arguments)
    assert [words for words in said if words not in line] == []


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_cuda_where_there_is_no_gpu(refused: Refused, recwarn: pytest.WarningsRecorder) -> None:
    line = refused("hpo", SIMULATED, "--device=cuda")
    assert "finds no GPU here, or on the worker that trains. Pass -P device=cpu" in line
    assert [str(warning.message) for warning in recwarn if "GPU" in str(warning.message)] == []


# --- months


def make_month(**columns: pa.Array | None) -> pa.Table:
    """Make a good month of January, except for the given columns; None leaves a column out."""
    table = pa.Table.from_batches(month_batches("2021-01", 300, 42))
    for name, values in columns.items():
        table = table.drop_columns(name)
        if values is not None:
            table = table.append_column(name, values)
    return table


def made_of(value: Any) -> pa.Array:
    return pa.array([value] * 300)


def refused_month(refused: Refused, folder: Path) -> str:
    return refused("preprocess", f"--source={folder}")


def test_a_month_that_is_not_in_the_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "green_tripdata_2020-12.parquet").touch()
    line = refused_month(refused, tmp_path)
    for words in (
        str(tmp_path),
        "2021-01",
        JANUARY,
        "Months there: 2020-12",
        "-P source=<folder>",
    ):
        assert words in line


@pytest.mark.parametrize("content", [b"", b"a text about trips\n", b"PAR1 and no more"])
def test_a_file_that_is_no_parquet(refused: Refused, tmp_path: Path, content: bytes) -> None:
    (tmp_path / JANUARY).write_bytes(content)
    line = refused_month(refused, tmp_path)
    assert f"{tmp_path / JANUARY} is not a whole parquet file" in line
    assert "Replace the file" in line


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"PULocationID": None}, ["'PULocationID' is missing", "DOLocationID, ", "taxi=yellow"]),
        ({"lpep_pickup_datetime": made_of({"at": 1})}, ["'lpep_pickup_datetime'", "struct<at"]),
        ({"lpep_dropoff_datetime": made_of(True)}, ["'lpep_dropoff_datetime'", "bool"]),
        ({"DOLocationID": made_of("Queens")}, ["'DOLocationID'", "'Queens'", "int32"]),
        ({"trip_distance": made_of("far")}, ["'trip_distance'", "'far'", "double"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_column_that_is_missing_or_of_another_type(
    refused: Refused, tmp_path: Path, columns: dict[str, pa.Array | None], said: list[str]
) -> None:
    pq.write_table(make_month(**columns), tmp_path / JANUARY)
    line = refused_month(refused, tmp_path)
    assert [words for words in [JANUARY, *said] if words not in line] == []


def test_a_csv_with_a_broken_line(refused: Refused, tmp_path: Path) -> None:
    path = (tmp_path / JANUARY).with_suffix(".csv")
    pa_csv.write_csv(make_month(), path)
    with path.open("a") as file:
        file.write("1,2\n")
    line = refused_month(refused, tmp_path)
    assert f"Cannot read {path}: line 302: Expected 20 columns, got 2: 1,2" in line


def test_a_month_of_which_no_trip_is_left(refused: Refused, tmp_path: Path) -> None:
    table = pa.Table.from_batches(month_batches("2019-01", 300, 42))
    pq.write_table(table, tmp_path / JANUARY)
    line = refused_month(refused, tmp_path)
    assert f"{JANUARY}: none of 300 trips is left after cleaning (" in line
    assert "Check that the file holds trips of 2021-01" in line


# --- the world outside


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve one good month."""
    pq.write_table(make_month(), tmp_path / JANUARY)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_cache_that_cannot_be_written(
    refused: Refused, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / JANUARY / "cache"
    monkeypatch.setenv("TAXI_CACHE", str(cache))
    line = refused("preprocess", f"--source={server}")
    assert f"the cache {cache} can be written, or set TAXI_CACHE" in line


def test_a_tracking_server_that_does_not_answer(refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
    done = run("-m", "steps.preprocess", SIMULATED, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 2
    (line,) = said_by("preprocess", done.stderr)
    assert f"No MLflow server answers at {uri}" in line
    assert "Start it, or set MLFLOW_TRACKING_URI" in line
    assert refused.new_runs() == []


# --- runs to build on


def test_a_run_that_does_not_exist(refused: Refused) -> None:
    line = refused("baseline", "--preprocess_run_id=0123abcd")
    assert "No run '0123abcd'" in line
    assert "preprocess_run_id" in line


@pytest.mark.parametrize("parameter", ["baseline_run_id", "hpo_run_id"])
def test_a_run_of_another_step(refused: Refused, parameter: str) -> None:
    line = refused("register", f"--{parameter}={refused.preprocessed}")
    step = parameter.removesuffix("_run_id")
    assert f"{refused.preprocessed} is of step 'preprocess'. Pass a {step} run" in line


def test_a_run_that_is_of_no_step(refused: Refused) -> None:
    run_id = refused.make_run("FINISHED")
    line = refused("hpo", f"--preprocess_run_id={run_id}")
    assert f"{run_id} is of no step of this project. Pass a preprocess run" in line


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_a_run_that_has_not_finished(refused: Refused, status: str) -> None:
    run_id = refused.make_run(status, step="preprocess")
    line = refused("hpo", f"--preprocess_run_id={run_id}")
    assert f"{run_id} is {status}. Pass a FINISHED preprocess run" in line


@pytest.mark.parametrize("parameter", ["preprocess_run_id", "hpo_run_id"])
def test_a_run_that_is_deleted(refused: Refused, parameter: str) -> None:
    """The given run, or the preprocess run that it builds on."""
    deleted = refused.make_run("FINISHED", step="preprocess")
    MlflowClient(refused.store.uri).delete_run(deleted)
    built_on = refused.make_run("FINISHED", step="hpo", preprocess_run_id=deleted)
    given = deleted if parameter == "preprocess_run_id" else built_on
    line = refused("register", f"--{parameter}={given}")
    assert f"The preprocess run {deleted} is deleted. Run `mlflow runs restore --run-id" in line


def test_a_preprocess_run_without_test_months_ends_register_before_anything_is_fitted(
    refused: Refused,
) -> None:
    trips = {"taxi": "green", "data": "simulated"}
    trips |= {f"months.{split}": "2021-01" for split in ("train", "valid")}
    trips |= {f"sha256.{split}": "c0ffee" for split in ("train", "valid")}
    run_id = refused.make_run("FINISHED", step="preprocess", **trips)
    line = refused("register", f"--preprocess_run_id={run_id}")
    assert "test months" in line
    assert "-P test_months=YYYY-MM" in line


@pytest.mark.parametrize("step", ["main", "register"])
def test_runs_that_read_other_trips(refused: Refused, step: str) -> None:
    run_id = refused.make_run("FINISHED", step="hpo", preprocess_run_id="another")
    line = refused(step, f"--hpo_run_id={run_id}", f"--preprocess_run_id={refused.preprocessed}")
    assert "do not build on the same trips" in line
    assert run_id in line
    assert refused.preprocessed in line


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_run_whose_trips_are_not_what_it_wrote(refused: Refused, damage: str) -> None:
    with artifacts.open_file(refused.preprocessed, "data/train.parquet") as found:
        path = found
    assert path.is_relative_to(refused.store.folder)
    content = path.read_bytes()
    try:
        path.unlink() if damage == "deleted" else path.write_bytes(content[:-9])
        line = refused("baseline", f"--preprocess_run_id={refused.preprocessed}")
    finally:
        path.write_bytes(content)
    assert refused.preprocessed in line
    assert "data/train.parquet" in line
    assert ("Was it deleted? Run" if damage == "deleted" else "Run preprocess again") in line


# --- through MLflow


def said_by(step: str, stderr: str) -> list[str]:
    """Pick the step's own lines out of MLflow's."""
    assert "Traceback" not in stderr
    return [line for line in stderr.splitlines() if line.startswith(f"{step}: ")]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # MLflow's retries take minutes; the timeout is far above what a step takes
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def mlflow_run(*parameters: str) -> subprocess.CompletedProcess[str]:
    words = [word for parameter in parameters for word in ("-P", parameter)]
    return run("-m", "mlflow", "run", ".", "--env-manager", "local", "-e", "preprocess", *words)


def test_mlflow_run_fails_with_the_steps_one_line(refused: Refused) -> None:
    said = "unrecognized arguments: --foo 1"
    done = mlflow_run("foo=1")
    assert done.returncode == 1
    (line,) = said_by("preprocess", done.stderr)
    assert said in line
    (failed,) = refused.new_runs()
    assert failed["info"]["status"] == "FAILED"
    assert said in failed["data"]["tags"]["failure"]


def test_a_value_is_text_to_the_shell_whatever_it_holds(refused: Refused, tmp_path: Path) -> None:
    bait = tmp_path / "executed"
    name = f'Zoë O\'Brien "the" 名; $(touch {bait}) `touch {bait}` && touch {bait} {{taxi}} $HOME *'
    done = mlflow_run("source=simulated:300", f"developer={name}")
    assert done.returncode == 0, done.stderr
    (made,) = refused.new_runs()
    assert made["info"]["status"] == "FINISHED"
    assert made["data"]["tags"]["developer"] == name
    assert not bait.exists()


def test_a_failing_step_fails_main_with_that_steps_reason(refused: Refused, tmp_path: Path) -> None:
    for month in ("2021-01", "2021-02", "2021-03"):
        (tmp_path / JANUARY.replace("2021-01", month)).write_text("a text about trips")
    with pytest.raises(SystemExit) as left:
        entry("main").main([f"--source={tmp_path}"])
    assert left.value.code == 2
    parent, child = refused.new_runs()
    assert child["data"]["tags"]["mlflow.parentRunId"] == parent["info"]["run_id"]
    assert {run["info"]["status"] for run in (parent, child)} == {"FAILED"}
    reason = child["data"]["tags"]["failure"]
    assert f"{tmp_path / JANUARY} is not a whole parquet file" in reason
    assert parent["data"]["tags"]["failure"] == f"preprocess failed: {reason}"
    stderr = refused.capfd.readouterr().err
    assert said_by("preprocess", stderr) == [f"preprocess: {reason}"]
    assert said_by("main", stderr) == [f"main: preprocess failed: {reason}"]
