"""What is shown on a terminal, and what is written to a pipe or a file instead."""

import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from storage import terminal
from storage.checkout import ROOT
from storage.terminal import Progress

HEADS = ["model", "features", "RMSE", "MAE", "R2"]
ROWS = [["tree", "compact", "5.388", "3.734", "0.785"], ["[mean]", "", "11.607", "", "0.000"]]
LONG = "preprocess: " + "a word and another " * 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make both streams a terminal of 80 columns; call it once pytest's capture is in place."""
    shown = Terminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, shown)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return shown


class Clock:
    """A clock that advances by a number of seconds each time it is read."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


def print_everything() -> None:
    terminal.print_line(LONG, style="bold")
    terminal.print_line(LONG, style="red", to=sys.stderr)
    terminal.print_page([f"**{LONG}** `so`", "", f"    {LONG}"])
    terminal.print_table(HEADS, ROWS, n_texts=2, strong=0)
    with Progress("search", 3, "trials", clock=Clock(terminal.EVERY_S)) as progress:
        for _ in range(3):
            progress.update(note="best rmse 5.3978 min")


# --- piped


@pytest.mark.parametrize("name", ["FORCE_COLOR", "COLUMNS"])
def test_a_pipe_is_given_whole_lines_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(name, "20")
    print_everything()
    out, err = capsys.readouterr()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", out + err)
    assert out.splitlines() == [
        LONG,
        f"{LONG} so",
        "",
        f"    {LONG}",
        "model   features    RMSE    MAE     R2",
        "tree    compact    5.388  3.734  0.785",
        "[mean]            11.607         0.000",
    ]
    assert err.splitlines() == [
        LONG,
        "search: 1 of 3 trials, best rmse 5.3978 min",
        "search: 2 of 3 trials, best rmse 5.3978 min",
    ]


def test_progress_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("search", 100, "trials", clock=Clock(terminal.EVERY_S / 9.5)) as progress:
        for _ in range(100):
            progress.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "search: 10 of 100 trials"
    assert 5 < len(lines) <= 10


def test_a_download_is_told_in_bytes_and_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("trips.parquet", 0, "B", clock=Clock(terminal.EVERY_S))
    bar.update(1_500_000)
    bar.total = 2_500_000  # as pooch does once the server has told the size
    bar.update(1_000_001)
    bar.reset()
    bar.update(1_000_000)
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        "trips.parquet: 1.5 MB",
        "trips.parquet: 2.5 of 2.5 MB",
        "trips.parquet: 1.0 of 2.5 MB",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("**tree** is `taxi` version 1.", "tree is taxi version 1."),
        (
            "- hpo: reused [417422ad…](#/experiments/1/runs/417) (ana)",
            "- hpo: reused 417422ad… (ana)",
        ),
        ("lasso_0.01 * 2 [1..60] min", "lasso_0.01 * 2 [1..60] min"),
    ],
)
def test_marks_are_for_pages(line: str, said: str) -> None:
    assert terminal.without_markdown(line) == said


# --- on a terminal


def test_a_terminal_is_shown_colours_and_lines_that_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = watch(monkeypatch)
    print_everything()
    shown = screen.getvalue()
    assert f"\x1b[1m{LONG}\x1b[0m\n" in shown
    assert f"\x1b[31m{LONG}\x1b[0m\n" in shown
    assert f"\n    {LONG}\n" in shown
    filled = [line for line in shown.splitlines() if "a word and" in line and LONG not in line]
    assert 0 < max(map(len, filled)) <= 80
    assert "\x1b[1mtree" in shown


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = watch(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    print_everything()
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][;m]", screen.getvalue())


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_what_cannot_move_its_cursor_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    screen = watch(monkeypatch)
    monkeypatch.setenv("TERM", kind)
    print_everything()
    assert "\x1b" not in screen.getvalue()
    assert "search: 2 of 3 trials" in screen.getvalue()


def test_a_bar_tells_how_far_it_is_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = watch(monkeypatch)
    with Progress("search", 3, "trials") as progress:
        progress.update(note="best rmse 5.3978 min")
        print("trial 1 failed: why")
        assert sys.stdout is not screen  # replaced, so that output goes above the bar
        assert progress.bar
        progress.bar[0].refresh()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search("search .* 1 of 3 trials, best rmse 5.3978 min", plain)
    assert "trial 1 failed: why\n" in plain
    assert sys.stdout is screen
    assert screen.getvalue().endswith("\x1b[2K")  # the bar's line is cleared


@pytest.mark.parametrize(("width", "last"), [("80", "R2"), ("37", "MAE"), ("20", "RMSE")])
def test_a_narrow_terminal_is_shown_whole_columns(
    monkeypatch: pytest.MonkeyPatch, width: str, last: str
) -> None:
    screen = watch(monkeypatch)
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.print_table(HEADS, ROWS, n_texts=2, strong=1)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert plain.splitlines()[0].split()[-1] == last
    told = " ".join(plain.split()).partition("(left out for lack of space: ")[2].rstrip(")")
    assert told == ", ".join(HEADS[HEADS.index(last) + 1 :])


# --- MLflow's own lines


@pytest.fixture
def loggers() -> Iterator[None]:
    names = ("mlflow", *terminal.LOGGED_AND_RAISED)
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    ("asked", "level", "of_store"), [("", "WARNING", "CRITICAL"), ("info", "INFO", "NOTSET")]
)
@pytest.mark.usefixtures("loggers")
def test_mlflow_is_quiet_unless_it_is_asked_to_speak(
    monkeypatch: pytest.MonkeyPatch, asked: str, level: str, of_store: str
) -> None:
    env = {terminal.LEVEL: asked} if asked else {}
    monkeypatch.setattr(terminal.os, "environ", env)
    for name in terminal.LOGGED_AND_RAISED:
        logging.getLogger(name).setLevel(logging.NOTSET)
    terminal.quieten()
    assert logging.getLevelName(logging.getLogger("mlflow").level) == level
    levels = {
        logging.getLevelName(logging.getLogger(name).level) for name in terminal.LOGGED_AND_RAISED
    }
    assert levels == {of_store}
    # the steps that it starts inherit the same
    assert env == {terminal.LEVEL: asked or "WARNING", **terminal.OUTPUT_SETTINGS}


def test_a_server_that_is_waited_for_is_told_once_an_outage(
    loggers: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for handler in logging.getLogger(terminal.RETRY_LOGGER).handlers[:]:
        logging.getLogger(terminal.RETRY_LOGGER).removeHandler(handler)
    for _ in range(2):
        terminal.quieten()
    (handler,) = logging.getLogger(terminal.RETRY_LOGGER).handlers
    now = 0.0
    monkeypatch.setattr(handler, "clock", lambda: now)
    asked = ("Retrying (%r) after connection broken by '%r': %s", 3, OSError(111))
    for at, path, n_said in [
        (1, "/api/2.0/mlflow/runs/get", 1),
        (99, "/api/2.0/mlflow/runs", 0),
        (350, "/api/2.0/mlflow/runs", 0),
        (2000, "/trips/2021-01.parquet", 0),
        (2001, "/api/2.0/mlflow-artifacts/artifacts/x", 1),
    ]:
        now = float(at)
        logging.getLogger(terminal.RETRY_LOGGER).warning(*asked, path)
        assert capsys.readouterr().err.count("The MLflow server does not answer") == n_said


def test_who_prints_lines_alone_does_not_wait_for_rich() -> None:
    code = (
        "import sys; from storage import terminal; terminal.quieten(); "
        "terminal.print_line('one', style='bold'); terminal.print_page(['**two**']); "
        "terminal.Progress('search', 3, 'trials').update(); print('rich' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout.splitlines(), done.stderr) == (["one", "two", "False"], "")
