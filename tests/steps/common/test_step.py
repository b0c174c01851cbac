"""How a step ends that is interrupted, or that meets what nobody foresaw."""

import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from steps.common.parameters import PreprocessParameters
from steps.common.step import step_run
from storage.checkout import ROOT
from tests.stores import Store


def test_an_interrupted_step_leaves_its_run_killed(store: Store) -> None:
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
            [sys.executable, "-m", "steps.preprocess", f"--source={source}"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert asked.wait(60)
            step.send_signal(signal.SIGTERM)
            stderr = step.communicate(timeout=60)[1]
        finally:
            step.kill()
            over.set()
            server.shutdown()
    assert step.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "preprocess: interrupted"
    (run,) = (run for run_id, run in store.runs().items() if run_id not in before)
    assert run["info"]["status"] == "KILLED"
    assert run["info"]["end_time"]


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
