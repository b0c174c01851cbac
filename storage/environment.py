"""What a process was started with and would trip over: made harmless, or told in one line.

It needs the standard library alone: it comes first, also in an environment that is half built.
"""

import atexit
import errno
import gc
import getpass
import io
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from storage import UserError

ROOT = Path(__file__).resolve().parents[1]
OWN = ("steps", "storage", "taxi")  # an import that fails in there is a mistake, not a lack
USER_ERROR, INTERRUPTED = 2, 130  # exit codes
INTERRUPTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CLOSED = (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal
# objects made between two searches for those that only hold one another
GC_THRESHOLD = 50_000


class Outlet(io.FileIO):
    """Where this process prints, for as long as somebody reads it."""

    def write(self, data: Any, /) -> int:
        """Write, to nowhere from when the pipe or the terminal is closed."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in CLOSED:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for what this process starts as well
            os.close(nowhere)
            return super().write(data)


def prepare() -> None:
    """Make this process, and those that it starts, run where they were started."""
    # a uv.lock of the working directory would go into every model, and be installed where it serves
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own lies in another environment
    # where git is missing, or a $ in the path, MLflow's own looks fill the screen; storage/git.py
    # says what follows from it
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    warnings.filterwarnings("ignore", "The use of environment variables in paths", UserWarning)
    os.environ["LOGNAME"] = login_name()
    if str(Path("~")) == os.path.expanduser("~"):  # noqa: PTH111  where pathlib would raise
        os.environ["HOME"] = tempfile.gettempdir()
    give_matplotlib_a_folder()
    show_what_can_be_shown()
    sys.excepthook = explain
    for number in interrupts():  # until the step has its run, and does so itself
        signal.signal(number, leave)
    spend_less()


def give_matplotlib_a_folder() -> None:
    """Name one where the home takes none: one of its own each forked step would try to remove."""
    places = {"XDG_CONFIG_HOME": "~/.config", "XDG_CACHE_HOME": "~/.cache"}
    folders = [Path(os.environ.get(name) or place).expanduser() for name, place in places.items()]
    if not all(map(_can_be_written, folders)):
        temporary = Path(tempfile.gettempdir(), f"matplotlib-{os.getuid()}")
        os.environ.setdefault("MPLCONFIGDIR", str(temporary))


def _can_be_written(folder: Path) -> bool:
    """Whether files can be kept in a folder, made for that where it is not there."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return os.access(folder, os.W_OK)


def interrupts() -> list[int]:
    """List the signals that end this process; nohup has it ignore that its terminal is gone."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in INTERRUPTS if number != signal.SIGHUP or not ignored]


def is_prepared() -> bool:
    """Whether this process was started for a step, and has nothing but that step in it."""
    return sys.excepthook is explain


def spend_less() -> None:
    """Leave out what costs CPU and brings nothing."""
    # on a busy machine, scikit-learn's waiting threads took six times the CPU of those that work
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    gc.set_threshold(GC_THRESHOLD)
    gc.disable()  # imports make hundreds of thousands of objects, all of which stay
    atexit.register(gc.freeze)  # taking them apart before the end took as long as a third of them


def have_imported() -> None:
    """Look for waste from now on, among what is not there yet; in a process of a step alone."""
    if is_prepared():
        gc.freeze()
        gc.enable()


def login_name() -> str:
    """Return the name of the user who is logged in, or the number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, say
        return str(os.getuid())


def machine() -> str:
    """Describe the processor and the system: the last digits of numbers may depend on them."""
    processor = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
        processor = found[1].strip() if found else processor
    return ", ".join(filter(None, (platform.machine(), processor, platform.system())))


def show_what_can_be_shown() -> None:
    """Print ? for what the terminal has no letter for, and nothing once nobody reads any more.

    What a step does is worth more than its lines, of which `| head -1` reads the first.
    """
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by >&-: a file of ours would get its number, and its lines
            _occupy(number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
        if name == "stdin" or not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="replace")
        is_outlet = isinstance(getattr(stream.buffer, "raw", None), Outlet)
        if _number(stream) == number and not is_outlet:
            stream.flush()
            outlet = io.BufferedWriter(Outlet(number, "w", closefd=False))
            shown = io.TextIOWrapper(outlet, stream.encoding, "replace", line_buffering=True)
            setattr(sys, name, shown)


def _occupy(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _number(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except io.UnsupportedOperation:  # a test's, in memory
        return None


def check_lock() -> None:
    """Refuse an environment that MLflow may have made of a uv.lock instead of requirements.txt.

    It does so with `--env-manager uv`, and gives that environment the name of the other one. With
    `local` a uv.lock does nothing, and a pylock.toml never does.

    Raises:
        UserError: so it is.
    """
    here, lock = Path(sys.prefix), ROOT / "uv.lock"
    if lock.exists() and _is_made_by_mlflow(here):
        raise UserError(
            f"{lock} is there, and --env-manager uv installs what it says instead of "
            f"requirements.txt, which is the lock here. Remove both it and what was made of it: "
            f"rm -r {shlex.quote(str(lock))} {shlex.quote(str(here))}"
        )


def _is_made_by_mlflow(prefix: Path) -> bool:
    return re.fullmatch(r"mlflow-[0-9a-f]{40}", prefix.name) is not None


def cure(prefix: Path) -> str:
    """Return the command that makes an environment whole again."""
    if _is_made_by_mlflow(prefix):  # MLflow makes it where it is missing
        return f"rm -r {shlex.quote(str(prefix))}"
    if prefix == ROOT / ".venv":
        return "rm -rf .venv && make .venv/.ready"
    return f"{shlex.quote(str(prefix / 'bin' / 'python'))} -m pip install -r requirements.txt"


def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell in one line of a library that cannot be imported; leave the rest to Python."""
    if not isinstance(error, ImportError) or (error.name or "").partition(".")[0] in OWN:
        sys.__excepthook__(kind, error, trace)
        return
    said = " ".join(str(error).split())
    print(
        f"{step_name()}: the environment {sys.prefix} is not whole: {said}. Run this, then start "
        f"again: {cure(Path(sys.prefix))}",
        file=sys.stderr,
    )
    raise SystemExit(USER_ERROR)


def explain_when_run() -> None:
    """Explain what the module lacks that Python has been told to run, and is only looking for."""
    if sys.argv[:1] == ["-m"]:
        sys.excepthook = explain


def step_name() -> str:
    """Return the name of the step that this process is, as far as Python knows it by now."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec else ""
    return name.rpartition(".")[2] if "." in name else "python"


def leave(signum: int, frame: FrameType | None) -> None:
    """End a step that is interrupted while it imports, where nothing but this could be told."""
    with suppress(OSError):  # print may be in the middle of a line; nobody may be there to read it
        os.write(2, f"{step_name()}: interrupted\n".encode())
    restore_later(os.environ.get("MLFLOW_RUN_ID"))
    os._exit(INTERRUPTED)  # no import is to take it for its own failure


def restore_later(run_id: str | None) -> None:
    """Have a process call a run of `mlflow run` KILLED that outlives it, for it speaks last."""
    if not run_id:
        return
    subprocess.Popen(
        [sys.executable, "-m", "storage.tracking.interrupted", run_id],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
