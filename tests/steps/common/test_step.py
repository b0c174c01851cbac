"""How a step ends that is interrupted, or that meets an unexpected error."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from steps.common.parameters import PreprocessParameters
from steps.common.step import step_run
from storage import environment
from storage.checkout import ROOT
from storage.tracking.tags import PID, STEP
from tests.stores import EXPERIMENT, Store

BY_ITSELF = [sys.executable, "-m", "steps.preprocess", "--source={source}"]
BY_MLFLOW_RUN = [
    *(sys.executable, "-m", "mlflow", "run", ".", "-e", "preprocess", "--env-manager", "local"),
    *("--experiment-name", EXPERIMENT, "-P", "source={source}"),
]


def wait_for_last_word(run_id: str) -> None:
    """Wait for the process that corrects a run's status after `mlflow run` has set it."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[-2:] == ["storage.tracking.interrupted", run_id]:
                process.wait(60)


@pytest.mark.parametrize(
    ("command", "sign"),
    [(BY_ITSELF, signal.SIGTERM), (BY_MLFLOW_RUN, signal.SIGINT)],
    ids=["by itself", "by mlflow run"],
)
def test_an_interrupted_step_leaves_its_run_killed(
    store: Store, command: list[str], sign: int
) -> None:
    asked, over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            over.wait(60)  # never answers

        def log_message(self, *_: object) -> None:
            pass

    before = store.runs()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        source = f"http://127.0.0.1:{server.server_port}"
        step = subprocess.Popen(
            [word.format(source=source) for word in command],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert asked.wait(60)
            os.killpg(step.pid, sign)
            stderr = step.communicate(timeout=60)[1]
        finally:
            step.kill()
            over.set()
            server.shutdown()
    (run_id,) = set(store.runs()) - before.keys()
    wait_for_last_word(run_id)
    if command == BY_ITSELF:
        assert step.returncode == 130
        assert "Traceback" not in stderr
    assert "preprocess: interrupted" in stderr.splitlines()
    run = store.runs()[run_id]
    assert run["info"]["status"] == "KILLED"
    assert run["info"]["end_time"]


@pytest.mark.skipif(sys.platform != "linux", reason="steps are forked on Linux only")
@pytest.mark.parametrize("whom", ["all of them, as Ctrl-C does", "the pipeline alone"])
def test_an_interrupted_pipeline_leaves_no_run_of_a_forked_step_behind(
    store: Store, whom: str
) -> None:
    before = store.runs()
    small = ("--source=simulated:3000", "--models=all", "--reuse=false", "--test_months=")
    main = subprocess.Popen(
        [sys.executable, "-m", "steps.main", *small],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not (found := processes_of("baseline", new_runs(store, before))):
            assert main.poll() is None
            time.sleep(0.1)
        (process,) = found
        assert psutil.Process(process).ppid() != main.pid  # it was forked, by the fork server
        if whom == "the pipeline alone":
            main.terminate()
        else:
            os.killpg(main.pid, signal.SIGINT)
        stderr = main.communicate(timeout=60)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(main.pid, signal.SIGKILL)
    new = new_runs(store, before)
    assert main.returncode == 130
    assert "Traceback" not in stderr
    assert not psutil.pid_exists(process)
    status = {run["data"]["tags"].get(STEP, "model"): run["info"]["status"] for run in new}
    assert status["main"] == status["baseline"] == "KILLED"
    assert "RUNNING" not in [run["info"]["status"] for run in new]


def new_runs(store: Store, before: dict[str, Any]) -> list[Any]:
    return [run for run_id, run in store.runs().items() if run_id not in before]


def processes_of(step: str, new: list[Any]) -> list[int]:
    marks = [run["data"]["tags"] for run in new]
    return [int(of[PID]) for of in marks if of.get(STEP) == step and PID in of]


def test_a_surprise_keeps_its_traceback_and_fails_the_run(store: Store) -> None:
    before = store.runs()
    with pytest.raises(ZeroDivisionError), step_run(PreprocessParameters, None, []):
        1 / 0  # noqa: B018
    (run,) = (run for run_id, run in store.runs().items() if run_id not in before)
    assert run["info"]["status"] == "FAILED"
    assert run["data"]["tags"]["failure"] == "ZeroDivisionError('division by zero')"


def test_parameters_that_cannot_be_parsed_fail_the_run_that_mlflow_run_has_made(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    run_id = client.create_run(experiment.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    unknown = ["--foo=1"]
    with pytest.raises(SystemExit) as left, step_run(PreprocessParameters, None, unknown):
        pytest.fail("it went on")
    assert left.value.code == 2
    run = client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert capsys.readouterr().err == f"preprocess: {run.data.tags['failure']}\n"


def test_a_store_without_its_driver_is_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr("storage.tracking.runs.StepRun.__enter__", missing)
    monkeypatch.setattr("mlflow.flush_async_logging", missing)  # it would open the store, too
    with pytest.raises(SystemExit) as left, step_run(PreprocessParameters, None, []):
        pytest.fail("it went on")
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("make lock EXTRAS=postgres")


def test_an_environment_that_may_be_made_of_another_lock_is_refused(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prefix = tmp_path / f"mlflow-{'0a' * 20}"
    monkeypatch.setattr("storage.environment.ROOT", tmp_path)
    environment.check_lock()
    (tmp_path / "uv.lock").touch()
    environment.check_lock()  # does nothing in an environment that somebody else has made
    monkeypatch.setattr("sys.prefix", str(prefix))
    before = store.runs()
    ours = step_run(PreprocessParameters, None, ["--source=simulated:10"])
    with pytest.raises(SystemExit) as left, ours:
        pytest.fail("it ran")
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"preprocess: {tmp_path}/uv.lock is there, and --env-manager uv installs what it" in line
    assert line.endswith(f"rm -r {tmp_path}/uv.lock {prefix}")
    (run,) = (run for run_id, run in store.runs().items() if run_id not in before)
    assert run["info"]["status"] == "FAILED"
