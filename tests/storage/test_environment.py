"""Odd environments of a process: a notebook's settings, a poor terminal, missing variables."""

import gc
import io
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import matplotlib
import pytest
from mlflow import MlflowClient

from steps.common.parameters import ENTRY_POINTS
from storage import environment
from storage.checkout import ROOT
from tests.stores import Store

UV_DETECT = "MLFLOW_UV_AUTO_DETECT"
PREPARED = ("MPLBACKEND", "GIT_PYTHON_REFRESH", UV_DETECT)
PREPROCESS = ["-m", "steps.preprocess", "--source=simulated:200", "--test_months="]


@cache
def bare_prefix() -> str:
    """Return sys.prefix as a process sees it for which nothing is installed.

    From Python 3.14 on it is that of the .venv.
    """
    words = [sys.executable, "-S", "-c", "import sys; print(sys.prefix)"]
    return subprocess.check_output(words, text=True).strip()


@pytest.mark.parametrize("step", ENTRY_POINTS)
def test_an_environment_that_is_half_built_is_one_line_with_the_cure(step: str) -> None:
    module = ENTRY_POINTS[step].module()
    nothing_installed = [sys.executable, "-S", "-m", module]
    done = subprocess.run(nothing_installed, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{step}: the environment {bare_prefix()} is not whole: ")
    assert "No module named '" in line
    assert line.endswith(f"start again: {environment.repair_command(Path(bare_prefix()))}")


@pytest.mark.parametrize(
    "module", ["storage.repro.transfer", "storage.repro.verify", "storage.tracking.store"]
)
def test_what_make_runs_says_so_too(module: str) -> None:
    nothing_installed = [sys.executable, "-S", "-m", module]
    done = subprocess.run(nothing_installed, cwd=ROOT, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    name = module.rpartition(".")[2]
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith(f"{name}: the environment {bare_prefix()} is not whole: ")


@pytest.mark.parametrize(
    ("name", "begins"), [("taxi.zones", ""), ("skops", "python: the environment ")]
)
def test_a_library_that_is_missed_late_is_told_so_and_a_mistake_here_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], name: str, begins: str
) -> None:
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    if begins:
        with pytest.raises(SystemExit) as left:
            environment.explain_import_error(type(error), error, None)
        assert left.value.code == 2
    else:
        environment.explain_import_error(type(error), error, None)
    assert ("is not whole" in capsys.readouterr().err) == bool(begins)


@pytest.mark.parametrize("sign", environment.INTERRUPT_SIGNALS)
def test_an_interruption_while_a_step_still_imports_is_one_line(sign: signal.Signals) -> None:
    # reset, because these tests may themselves have been started by nohup
    begin = f"import os, signal; signal.signal({sign:d}, signal.SIG_DFL)"
    code = f"from storage import environment as e; e.prepare(); os.kill(os.getpid(), {sign:d})"
    words = [sys.executable, "-S", "-c", f"{begin}; {code}; print('went on')"]
    env = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "python: interrupted\n")


STARTED = "import os, signal, sys\nfrom storage import environment\nenvironment.prepare()\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_step_goes_on_where_nobody_reads_what_it_prints(name: str, unbuffered: str) -> None:
    read, write = os.pipe()
    print_twice = f"for _ in range(2): print('a line', file=sys.{name})\n"
    said = subprocess.Popen(
        [sys.executable, "-c", f"{STARTED}input()\n{print_twice}sys.exit(7)"],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdin=subprocess.PIPE,
        **{name: write},  # type: ignore[call-overload]
    )
    os.close(write)
    os.close(read)
    said.communicate(b"now\n", timeout=60)
    assert said.returncode == 7


def test_a_step_goes_on_where_its_terminal_is_gone() -> None:
    above, below = os.openpty()
    begun = subprocess.Popen(
        [sys.executable, "-c", f"{STARTED}input()\nprint('a line')\nsys.exit(7)"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=below,
    )
    os.close(below)
    os.close(above)
    begun.communicate(b"now\n", timeout=60)
    assert begun.returncode == 7


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_was_closed_from_the_start_is_no_file_of_ours(closed: str, tmp_path: Path) -> None:
    opened = f"number = open({str(tmp_path / 'file')!r}, 'w').fileno()\n"
    printed = "print('a line', file=sys.stdout)\nprint('a line', file=sys.stderr)\n"
    code = f"{STARTED}{opened}{printed}sys.exit(7 if number > 2 else number)"
    script = f'exec "$0" -c "$1" {closed}'
    done = subprocess.run(["sh", "-c", script, sys.executable, code], cwd=ROOT, check=False)
    assert done.returncode == 7
    assert (tmp_path / "file").read_text() == ""


def test_a_disk_that_is_full_is_no_reader_who_left() -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-c", f"{STARTED}print('a line')"]
        done = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "No space left" in done.stderr


def test_nohup_keeps_a_step_that_loses_its_terminal() -> None:
    code = f"signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{STARTED.partition(chr(10))[2]}"
    hang_up = "os.kill(os.getpid(), signal.SIGHUP)\nprint('went on')"
    raised = "from storage import interruptions\ninterruptions.raise_on_first_signal()\n"
    words = [sys.executable, "-c", f"import os, signal\n{code}{hang_up}\n{raised}{hang_up}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "went on\n" * 2)


def test_an_interrupted_step_leaves_somebody_to_call_its_run_killed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    left: list[list[str]] = []
    codes: list[int] = []
    monkeypatch.setattr(environment.subprocess, "Popen", lambda words, **_: left.append(words))
    monkeypatch.setattr(environment.os, "_exit", codes.append)
    monkeypatch.setenv("MLFLOW_RUN_ID", "0a1b")
    environment.exit_on_signal(signal.SIGINT, None)
    assert codes == [130]
    assert left == [[sys.executable, "-m", "storage.tracking.interrupted", "0a1b"]]
    assert capfd.readouterr().err.endswith(": interrupted\n")


def test_a_step_spends_little_on_threads_that_wait_and_on_looking_for_waste(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen, at_exit = [], []
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr("gc.freeze", lambda: frozen.append(gc.isenabled()))
    monkeypatch.setattr("atexit.register", at_exit.append)
    before = gc.get_threshold()
    try:
        environment.save_cpu_time()
        assert gc.get_threshold()[0] == environment.GC_THRESHOLD
        assert not gc.isenabled()  # during imports
        environment.start_garbage_collection()
        assert not frozen  # because objects of others exist
        monkeypatch.setattr("sys.excepthook", environment.explain_import_error)
        environment.start_garbage_collection()
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
        gc.enable()
    assert frozen == [False]
    assert at_exit == [gc.freeze]
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


@pytest.mark.parametrize(
    ("prefix", "cure"),
    [
        (Path("/home of ana") / f"mlflow-{'0a' * 20}", f"rm -r '/home of ana/mlflow-{'0a' * 20}'"),
        (ROOT / ".venv", "rm -rf .venv && make .venv/.ready"),
        (Path("/conda"), "/conda/bin/python -m pip install -r requirements.txt"),
    ],
)
def test_each_environment_is_mended_by_who_made_it(prefix: Path, cure: str) -> None:
    assert environment.repair_command(prefix) == cure


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_shows_what_it_can(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    environment.tolerate_output_errors()
    print("├── preprocess reused 1a2b… 🏃 \udcf6", flush=True)
    shown = written.getvalue().decode(encoding)
    assert ("🏃" in shown) == (encoding == "utf-8")
    assert "preprocess reused 1a2b" in shown
    assert "?" in shown


def test_a_user_without_name_or_home_gets_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: object = None) -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", *PREPARED):
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    monkeypatch.setattr("sys.excepthook", sys.excepthook)
    spent = []
    monkeypatch.setattr(environment, "save_cpu_time", lambda: spent.append("less"))
    monkeypatch.setattr(environment, "INTERRUPT_SIGNALS", ())
    environment.prepare()
    assert spent
    assert os.environ[UV_DETECT] == "false"  # so that no model takes a uv.lock along
    assert os.environ["LOGNAME"] == "4711"
    assert Path.home().is_dir()


@pytest.mark.parametrize(
    ("home", "config", "cache", "is_named"),
    [
        ("folder", "", "", False),
        ("file", "", "", True),
        ("folder", "file/below", "", True),
        ("folder", "", "file/below", True),
        ("file", "folder", "folder", False),
    ],
)
def test_matplotlib_keeps_what_it_keeps_in_one_folder_where_the_home_takes_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    home: str,
    config: str,
    cache: str,
    is_named: bool,
) -> None:
    """The first forked step that ends removes a folder that matplotlib has made itself."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MPLCONFIGDIR", "")  # so that what is set below is undone
    monkeypatch.delenv("MPLCONFIGDIR")
    for name, kept in (("HOME", home), ("XDG_CONFIG_HOME", config), ("XDG_CACHE_HOME", cache)):
        monkeypatch.setenv(name, str(tmp_path / kept) if kept else "")
    environment.set_matplotlib_folder()
    assert ("MPLCONFIGDIR" in os.environ) == is_named


def test_a_step_runs_in_a_strange_folder_of_a_strange_user(store: Store, tmp_path: Path) -> None:
    """All at once: an odd name, the default store, no git, no home, a terminal, a notebook."""
    name = 'my wörk #1 "x" $HOME & so'
    if sys.version_info >= (3, 14):  # a # is refused there: MLflow takes the rest for a fragment
        name = name.replace("#", "")
    checkout, temporary = tmp_path / name, tmp_path / "tmp of ana"
    temporary.mkdir()
    for tree in ("steps", "storage", "taxi"):
        shutil.copytree(ROOT / tree, checkout / tree)
    for name in ("MLproject", "requirements.txt", "python_env.yaml"):
        shutil.copy(ROOT / name, checkout)
    shutil.copy(store.folder / "mlflow.db", checkout)  # creating its tables would take seconds
    env = {
        "PATH": "",
        "LC_ALL": "C",
        "PYTHONIOENCODING": "latin-1",
        "TMPDIR": str(temporary),
        "TAXI_CACHE": str(temporary / "cache"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": matplotlib.get_configdir(),  # making a list of fonts would take seconds
    }
    command = [sys.executable, *PREPROCESS]
    done = subprocess.run(
        command, cwd=checkout, env=env, umask=0o077, capture_output=True, encoding="latin-1"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "preprocess: git cannot tell the state of this code (git cannot be run" in done.stdout
    client = MlflowClient(f"sqlite:///{checkout}/mlflow.db")
    experiment = client.get_experiment_by_name("nyc-taxi-experiment")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["git_dirty"] == "unknown"
    assert (checkout / "mlruns").is_dir()
    assert set(tmp_path.iterdir()) == {checkout, temporary}
