"""What a process would trip over in its environment: made harmless, or reported in one line.

Needs only the standard library: it runs first, even in an incomplete environment.
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
# a failed import of these is a bug, not a missing package
OWN_PACKAGES = ("steps", "storage", "taxi")
USER_ERROR, INTERRUPTED = 2, 130  # exit codes
INTERRUPT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CLOSED_ERRNOS = (errno.EPIPE, errno.EIO)  # of a closed pipe, of a closed terminal
# objects created between two garbage collections
GC_THRESHOLD = 50_000


class DiscardingStream(io.FileIO):
    """A standard stream of this process that discards its output once nobody reads it."""

    def write(self, data: Any, /) -> int:
        """Write; once the pipe or the terminal is closed, discard."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in CLOSED_ERRNOS:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for child processes as well
            os.close(nowhere)
            return super().write(data)


def prepare() -> None:
    """Make this process and its children work in the environment that they were started in."""
    # MLflow would save the working directory's uv.lock in every model, and install it for serving
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own is in another environment
    # if git is missing, or a path contains a $, MLflow's own warnings fill the screen;
    # storage/git.py says what matters
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    warnings.filterwarnings("ignore", "The use of environment variables in paths", UserWarning)
    os.environ["LOGNAME"] = login_name()
    if str(Path("~")) == os.path.expanduser("~"):  # noqa: PTH111  where pathlib would raise
        os.environ["HOME"] = tempfile.gettempdir()
    set_matplotlib_folder()
    tolerate_output_errors()
    sys.excepthook = explain_import_error
    for number in interrupt_signals():  # until the step has its run, and handles them itself
        signal.signal(number, exit_on_signal)
    save_cpu_time()


def set_matplotlib_folder() -> None:
    """Set MPLCONFIGDIR if the home is not writable: forks would try to remove a temporary one."""
    places = {"XDG_CONFIG_HOME": "~/.config", "XDG_CACHE_HOME": "~/.cache"}
    folders = [Path(os.environ.get(name) or place).expanduser() for name, place in places.items()]
    if not all(map(_is_writable, folders)):
        temporary = Path(tempfile.gettempdir(), f"matplotlib-{os.getuid()}")
        os.environ.setdefault("MPLCONFIGDIR", str(temporary))


def _is_writable(folder: Path) -> bool:
    """Whether a folder, created if needed, is writable."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return os.access(folder, os.W_OK)


def interrupt_signals() -> list[int]:
    """List the signals that interrupt this process; not SIGHUP if that is ignored, as by nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in INTERRUPT_SIGNALS if number != signal.SIGHUP or not ignored]


def is_prepared() -> bool:
    """Whether this process was started for a step, and runs nothing else."""
    return sys.excepthook is explain_import_error


def save_cpu_time() -> None:
    """Avoid CPU time that brings nothing."""
    # on a busy machine, scikit-learn's waiting threads took six times the CPU of the working ones
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    gc.set_threshold(GC_THRESHOLD)
    gc.disable()  # imports create hundreds of thousands of objects, all of which stay
    atexit.register(gc.freeze)  # collecting them at exit took a third of the imports' time


def start_garbage_collection() -> None:
    """Start garbage collection, only of objects created from now on, in a process of a step."""
    if is_prepared():
        gc.freeze()
        gc.enable()


def login_name() -> str:
    """Return the login name of the user, or the user id if it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as in a container
        return str(os.getuid())


def describe_machine() -> str:
    """Describe the processor and the system: the last digits of numbers may depend on them."""
    processor = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
        processor = found[1].strip() if found else processor
    return ", ".join(filter(None, (platform.machine(), processor, platform.system())))


def tolerate_output_errors() -> None:
    """Print ? for characters that the terminal lacks, and nothing once nobody reads any more.

    A step must not fail because its output is not read to the end, as with `| head -1`.
    """
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by >&-: the next file would get its number, and lines
            _open_devnull_as(number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
        if name == "stdin" or not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="replace")
        is_discarding = isinstance(getattr(stream.buffer, "raw", None), DiscardingStream)
        if _number(stream) == number and not is_discarding:
            stream.flush()
            buffer = io.BufferedWriter(DiscardingStream(number, "w", closefd=False))
            shown = io.TextIOWrapper(buffer, stream.encoding, "replace", line_buffering=True)
            setattr(sys, name, shown)


def _open_devnull_as(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _number(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except io.UnsupportedOperation:  # in memory, as in a test
        return None


def check_lock() -> None:
    """Refuse an environment that MLflow may have made from a uv.lock instead of requirements.txt.

    It does so with `--env-manager uv`, under the name of the environment of requirements.txt. With
    `local` a uv.lock has no effect, and a pylock.toml never has.

    Raises:
        UserError: there is a uv.lock, and MLflow has made this environment.
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


def repair_command(prefix: Path) -> str:
    """Return the command that repairs an environment."""
    if _is_made_by_mlflow(prefix):  # MLflow makes it again
        return f"rm -r {shlex.quote(str(prefix))}"
    if prefix == ROOT / ".venv":
        return "rm -rf .venv && make .venv/.ready"
    return f"{shlex.quote(str(prefix / 'bin' / 'python'))} -m pip install -r requirements.txt"


def explain_import_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report a library that cannot be imported in one line; leave other errors to Python."""
    if not isinstance(error, ImportError) or (error.name or "").partition(".")[0] in OWN_PACKAGES:
        sys.__excepthook__(kind, error, trace)
        return
    reason = " ".join(str(error).split())
    print(
        f"{step_name()}: the environment {sys.prefix} is not whole: {reason}. Run this, then start "
        f"again: {repair_command(Path(sys.prefix))}",
        file=sys.stderr,
    )
    raise SystemExit(USER_ERROR)


def install_import_error_hook() -> None:
    """Install `explain_import_error`, if Python is still looking for the module to run."""
    if sys.argv[:1] == ["-m"]:
        sys.excepthook = explain_import_error


def step_name() -> str:
    """Return the name of the step that this process runs, as far as Python knows it by now."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec else ""
    return name.rpartition(".")[2] if "." in name else "python"


def exit_on_signal(signum: int, frame: FrameType | None) -> None:
    """Exit when a step is interrupted during its imports, before it has a run to close."""
    with suppress(OSError):  # print may be in the middle of a line; stderr may be closed
        os.write(2, f"{step_name()}: interrupted\n".encode())
    restore_later(os.environ.get("MLFLOW_RUN_ID"))
    os._exit(INTERRUPTED)  # an exception might be taken for an import's failure


def restore_later(run_id: str | None) -> None:
    """Start a process that sets a run to KILLED after `mlflow run` has marked it FAILED."""
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
