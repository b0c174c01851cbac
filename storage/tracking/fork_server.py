"""A fork server: steps are forked from one process, so that common imports happen once.

A step that launches others forks itself before it has threads or an open store. The copy is the
server: for each launch it imports the step's module and forks a process that runs it. Imports are
most of a small step's cost. To MLflow this is a project backend, like that of a plugin.
"""

import atexit
import importlib
import json
import os
import shlex
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import mlflow
from mlflow.projects.backend import loader
from mlflow.projects.backend.local import LocalBackend
from mlflow.projects.submitted_run import LocalSubmittedRun, SubmittedRun
from mlflow.projects.utils import (
    fetch_and_validate_project,
    get_entry_point_command,
    get_or_create_run,
    get_run_env_vars,
    load_project,
)
from mlflow.tracking import MlflowClient
from mlflow.utils.databricks_utils import get_databricks_env_vars
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

from storage import environment, interruptions
from storage.environment import INTERRUPT_SIGNALS
from storage.tracking import tags

BACKEND = "fork"  # its name among MLflow's project backends
OUTPUTS = (1, 2)  # file descriptors of stdout and stderr
N_BYTES = 1 << 20  # of a request, per read


class ForkServer(LocalBackend):
    """The fork server, as seen by the process that launches steps."""

    def __init__(self, read_code: Callable[[], None]) -> None:
        """Fork the server; the caller must not have threads or an open store yet.

        Args:
            read_code: records the loaded code, and only that: steps will run it even if files are
                edited meanwhile; called in the server.
        """
        self.last: ForkedProcess | None = None
        import_store(mlflow.get_tracking_uri())  # once, for this process and all its forks
        self.channel, server_end = socket.socketpair()
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT_SIGNALS)
        self.pid = _fork()
        if not self.pid:
            self.channel.close()
            _serve(server_end, read_code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT_SIGNALS)
        server_end.close()
        self.answers = self.channel.makefile("rb")
        loader.MLFLOW_BACKENDS[BACKEND] = lambda: self  # type: ignore[assignment]

    def close(self) -> None:
        """Stop the server and wait for it, so that its cost counts as that of a child process."""
        loader.MLFLOW_BACKENDS.pop(BACKEND, None)
        self.answers.close()
        self.channel.close()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: Mapping[str, str],
        version: str | None,
        backend_config: Mapping[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> SubmittedRun:
        """Do what MLflow's own backend does for `env_manager=local`, without a shell."""
        work_dir = fetch_and_validate_project(project_uri, version, entry_point, params)
        project = load_project(work_dir)
        run = get_or_create_run(
            None, project_uri, experiment_id, work_dir, version, entry_point, params
        )
        (command,) = get_entry_point_command(project, entry_point, params, None)
        env = get_run_env_vars(run.info.run_id, experiment_id)
        env |= get_databricks_env_vars(tracking_uri)
        # MLflow does so only after the step has begun, which by then may have read another name
        MlflowClient().set_tag(run.info.run_id, tags.RUN_NAME, backend_config[tags.RUN_NAME])
        process = self.start(shlex.split(command), work_dir, os.environ | env)
        return LocalSubmittedRun(run.info.run_id, process)

    def start(self, command: list[str], cwd: str, env: Mapping[str, str]) -> "ForkedProcess":
        """Start a process that shares this one's stdout and stderr.

        Args:
            command: python -m <module with a function main> and its arguments.
            cwd: its working directory.
            env: its environment.
        """
        request = json.dumps({"command": command, "cwd": cwd, "env": dict(env)}).encode()
        with suppress(BrokenPipeError):  # the server is gone: waiting for its answer says so
            socket.send_fds(self.channel, [request + b"\n"], OUTPUTS)
        self.last = ForkedProcess(self)
        return self.last


class ForkedProcess:
    """The process of a step, with the methods of a subprocess that MLflow calls."""

    def __init__(self, server: ForkServer) -> None:
        """Describe the process that was requested last."""
        self.server = server
        self.heard: list[bytes] = []  # the server's answers: the process id, then its exit code
        self.code: int | None = None

    @property
    def pid(self) -> int:
        """Return the process id; wait until it has been forked.

        Raises:
            ProcessLookupError: it never was.
        """
        return int(self._read_answers(1)[0])

    def poll(self) -> int | None:
        """Return the exit code if `wait` has read it; else None."""
        return self.code

    def terminate(self) -> None:
        """Interrupt the process."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the process to end, and return its exit code."""
        if self.code is None:
            try:
                self.code = int(self._read_answers(2)[1])
            except ProcessLookupError as error:
                print(error, file=sys.stderr)
                self.code = 1
                if self.heard:  # without the server, nobody would notice the step's end
                    self.terminate()
        return self.code

    def _read_answers(self, n_answers: int) -> list[bytes]:
        with suppress(ConnectionError):
            # in one call: no interruption can lose an answer between reading and keeping it
            self.heard.extend(islice(self.server.answers, max(n_answers - len(self.heard), 0)))
        if len(self.heard) < n_answers:
            raise ProcessLookupError("the process that forks steps has died")
        return self.heard


def ended_by() -> str:
    """Say which signal killed the last forked step, as it cannot itself; empty if none did."""
    server = loader.MLFLOW_BACKENDS[BACKEND]() if is_running() else None
    last = server.last if isinstance(server, ForkServer) else None
    if not last or not last.code or last.code > 0:
        return ""
    number = -last.code
    why = ", usually for lack of memory" if number == signal.SIGKILL else ""
    return f"The step was ended by signal {number}, {signal.strsignal(number)}{why}."


def is_running() -> bool:
    """Whether this process has a fork server."""
    return BACKEND in loader.MLFLOW_BACKENDS


def import_store(uri: str) -> None:
    """Import the modules that a store needs, without opening it."""
    if not uri.startswith("http"):
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        importlib.import_module("sqlalchemy.orm").configure_mappers()


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # about threads of the linear-algebra library, which is safe to fork
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _serve(channel: socket.socket, read_code: Callable[[], None]) -> NoReturn:
    """Fork a process for each request, one at a time, until the caller closes its end."""
    for number in environment.interrupt_signals():
        signal.signal(number, interruptions.ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT_SIGNALS)
    try:
        read_code()
        while request := _receive(channel):
            module = _prepare(request.command, request.env)
            read_code()
            signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT_SIGNALS)
            if not (pid := _fork()):
                channel.close()
                _run(module, request)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT_SIGNALS)
            for output in request.outputs:
                os.close(output)
            channel.sendall(b"%d\n" % pid)
            _, status = os.waitpid(pid, 0)
            channel.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    except ConnectionError:  # the caller has died
        pass
    except Exception:  # noqa: BLE001  reported as Python itself would
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


class _Request(NamedTuple):
    """A request to start a process."""

    command: list[str]  # python -m <module> and so on
    cwd: str
    env: dict[str, str]
    outputs: list[int]  # file descriptors for its stdout and stderr


def _receive(channel: socket.socket) -> _Request | None:
    text, outputs, _, _ = socket.recv_fds(channel, N_BYTES, len(OUTPUTS))
    while text and not text.endswith(b"\n"):
        if not (more := channel.recv(N_BYTES)):
            return None
        text += more
    return _Request(**json.loads(text), outputs=outputs) if text else None


def _prepare(command: list[str], env: Mapping[str, str]) -> str:
    """Import the module of a command, and what it will need, for this and all later forks.

    Returns:
        The name of the module.
    """
    name = command[2]
    with suppress(Exception):  # the step itself will report what is wrong
        spec = find_spec(name)
        if spec and spec.submodule_search_locations:
            name = f"{name}.__main__"
        importlib.import_module(name)
        import_store(env["MLFLOW_TRACKING_URI"])
        if "storage.tracking.models" in sys.modules:
            # MLflow checks all installed packages before it saves or loads its first model
            warn_dependency_requirement_mismatches(["mlflow"])
    return name


def _run(module: str, request: _Request) -> NoReturn:
    """Run a request in this process, which was just forked, and exit."""
    code: Any = 1
    try:
        for place, output in zip(OUTPUTS, request.outputs, strict=True):
            os.dup2(output, place)
            os.close(output)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in OUTPUTS)
        os.environ.clear()
        os.environ.update(request.env)
        os.chdir(request.cwd)
        environment.prepare()
        # a pending interruption must be reported under this step's name, not its parent's
        sys.modules["__main__"] = sys.modules.get(module, sys.modules["__main__"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT_SIGNALS)
        code = _exit_code(module, request.command)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # noqa: BLE001  reported as Python itself would
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _exit_code(module: str, command: list[str]) -> int:
    try:
        try:
            sys.argv = [module, *command[3:]]
            step: ModuleType = importlib.import_module(module)
            sys.modules["__main__"] = step
            step.main()
        except Exception:  # noqa: BLE001  reported as Python itself would
            sys.excepthook(*sys.exc_info())
            return 1
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
