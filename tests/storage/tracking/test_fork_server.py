"""A forked step behaves as its command would have done."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from bench.steps import children_cpu_s
from storage import environment
from storage.repro import step_key
from storage.tracking import fork_server
from storage.tracking.fork_server import ForkedProcess, ForkServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    monkeypatch.setattr("mlflow.projects.backend.loader.MLFLOW_BACKENDS", {})
    server = ForkServer(step_key.read_loaded)
    yield server
    server.close()


def start(server: ForkServer, code: str, cwd: Path = Path(), **env: str) -> ForkedProcess:
    env = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "PATH": os.environ["PATH"]} | env
    return server.start(["python", "-m", "tests.forked", code], str(cwd), env)


@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [
        ("pass", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(2)", 2, ""),
        ("raise SystemExit('no trips')", 1, "no trips\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        (
            "import os; os.kill(os.getpid(), 9)",
            -9,
            "The step was ended by signal 9, Killed, usually for lack of memory.",
        ),
        ("import os; os.abort()", -6, "The step was ended by signal 6, Aborted."),
    ],
)
def test_it_ends_as_python_would(
    server: ForkServer,
    capfd: pytest.CaptureFixture[str],
    code: str,
    expected: int,
    said: str,
) -> None:
    assert start(server, code).wait() == expected
    assert (capfd.readouterr().err + fork_server.ended_by()).endswith(said)
    assert bool(fork_server.ended_by()) == (expected < 0)


def test_it_has_its_own_environment_folder_and_process_and_prints_where_this_one_does(
    server: ForkServer,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONLY_HERE", "1")
    code = "import os; print(os.getpid(), os.getcwd(), os.getenv('MINE'), os.getenv('ONLY_HERE'))"
    process = start(server, code, tmp_path, MINE="a b")
    assert process.wait() == 0
    assert process.pid not in (os.getpid(), server.pid)
    assert capfd.readouterr().out == f"{process.pid} {tmp_path} a b None\n"


def test_what_speaks_to_the_store_is_imported_before_the_fork_once_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def fork() -> int:
        done.append("fork")
        return os.getpid()

    monkeypatch.setattr("mlflow.projects.backend.loader.MLFLOW_BACKENDS", {})
    monkeypatch.setattr(fork_server, "import_store", done.append)
    monkeypatch.setattr(fork_server, "_fork", fork)
    server = ForkServer(step_key.read_loaded)
    server.answers.close()
    server.channel.close()
    assert done == [mlflow.get_tracking_uri(), "fork"]


def test_one_that_is_told_to_stop_is_interrupted(
    server: ForkServer, capfd: pytest.CaptureFixture[str]
) -> None:
    process = start(server, "import signal; signal.pause()")
    assert process.poll() is None
    process.terminate()
    assert process.wait() == process.poll() == 130
    assert "interrupted" in capfd.readouterr().err


def test_one_that_is_interrupted_before_it_has_begun_says_its_own_name(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare = environment.prepare

    def interrupted() -> None:
        prepare()
        os.kill(os.getpid(), signal.SIGTERM)  # still blocked

    monkeypatch.setattr("mlflow.projects.backend.loader.MLFLOW_BACKENDS", {})
    monkeypatch.setattr(environment, "prepare", interrupted)
    server = ForkServer(step_key.read_loaded)
    assert start(server, "print('begun')").wait() == 130
    server.close()
    assert capfd.readouterr() == ("", "forked: interrupted\n")


def test_what_runs_as_python_ends_runs_here_too(
    server: ForkServer, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import atexit; atexit.register(print, 'last'); print('first')"
    assert start(server, code).wait() == 0
    assert capfd.readouterr().out == "first\nlast\n"


def test_what_it_costs_counts_as_that_of_a_process_started_here(server: ForkServer) -> None:
    before = children_cpu_s()
    work = "import time\nwhile time.process_time() < 0.3: pass"
    assert start(server, work).wait() == 0
    server.close()
    assert children_cpu_s() - before > 0.3
    assert not fork_server.is_running()


def test_nobody_waits_for_a_server_that_has_died(server: ForkServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    assert start(server, "pass").wait() == 1


def test_it_says_so_where_the_server_has_died(
    server: ForkServer, capfd: pytest.CaptureFixture[str]
) -> None:
    process = start(server, "import signal; signal.pause()")
    assert process.pid
    os.kill(server.pid, signal.SIGKILL)
    assert process.wait() == 1
    assert "the process that forks steps has died" in capfd.readouterr().err


def test_no_answer_is_lost_to_an_interruption(server: ForkServer) -> None:
    process = start(server, "import time; time.sleep(1)")
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            process.wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert process.wait() == 0
    assert process.pid != server.pid


@pytest.mark.parametrize(
    ("command", "cwd", "said"),
    [
        ("tests.not_there", "", "No module named 'tests.not_there'"),
        ("tests..forked", "", "No module named 'tests.'"),
        ("tests.forked", "/not/there", "No such file or directory: '/not/there'"),
    ],
)
def test_what_cannot_be_run_says_why_and_the_next_one_runs(
    server: ForkServer, capfd: pytest.CaptureFixture[str], command: str, cwd: str, said: str
) -> None:
    env = {"PATH": os.environ["PATH"]}
    assert server.start(["python", "-m", command, "pass"], cwd or ".", env).wait()
    assert said in capfd.readouterr().err
    assert start(server, "pass").wait() == 0
