"""Interruptions that are raised once, and where they are not lost and break no clean-up.

Python raises KeyboardInterrupt wherever it happens to be. During an import it leaves half a module,
with which the run cannot be closed. During a query the store stays locked until the exception is
gone. A thread pool, such as MLflow's for files, may never stop a thread that it is just starting,
or never release a lock, and the process waits for ever. While a folder is removed, or a pool still
writes into it, it turns into another error. In a callback of the garbage collector it is printed
and forgotten. And an object that it leaves half made may complain about that when it is deleted.
"""

import os
import signal
import sys
import threading
from functools import partial
from types import FrameType
from typing import Any

from storage.environment import interrupt_signals

# files whose code must not be interrupted
UNINTERRUPTIBLE = (
    "<frozen importlib",
    f"{os.sep}sqlalchemy{os.sep}",
    os.path.join("mlflow", "store", "artifact", ""),  # noqa: PTH118  a part of a path
    f"{os.sep}shutil.py",
    f"{os.sep}tempfile.py",
)
POOLS = os.path.join("concurrent", "futures", "")  # noqa: PTH118  its waits may be interrupted
JOINS = ("join", "_wait_for_tstate_lock")  # of threads; Python 3.13 has only the first
WAIT_S, N_WAITS = 0.05, 200  # ten seconds in all; a locked sqlite store takes longer


def raise_on_first_signal() -> None:
    """Raise KeyboardInterrupt at the first signal that interrupts this process, and only then."""
    for number in (*interrupt_signals(), signal.SIGALRM):
        signal.signal(number, _interrupt)


def _interrupt(signum: int, frame: FrameType | None, n_waits: int = N_WAITS) -> None:
    for number in interrupt_signals():
        signal.signal(number, ignore)  # a second one would cut the clean-up short
    if n_waits and _is_uninterruptible(frame):
        _retry_later(n_waits - 1)
    else:
        sys.unraisablehook = partial(_raise_swallowed, previous_hook=sys.unraisablehook)
        raise KeyboardInterrupt


def ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing; with SIG_IGN instead, Python prints a line for a signal already pending."""


def _is_uninterruptible(frame: FrameType | None) -> bool:
    uninterruptible = UNINTERRUPTIBLE if _waits_for_a_thread(frame) else (*UNINTERRUPTIBLE, POOLS)
    while frame:
        if any(part in frame.f_code.co_filename for part in uninterruptible):
            return True
        frame = frame.f_back
    return False


def _waits_for_a_thread(frame: FrameType | None) -> bool:
    if not frame or frame.f_code.co_filename != threading.__file__:
        return False
    # Condition.wait, between releasing its lock and acquiring it again; and Thread.join
    is_in_wait = frame.f_code.co_name == "wait" and frame.f_locals.get("gotit") is False
    return is_in_wait or frame.f_code.co_name in JOINS


def _retry_later(n_waits: int) -> None:
    signal.signal(signal.SIGALRM, partial(_interrupt, n_waits=n_waits))
    signal.setitimer(signal.ITIMER_REAL, WAIT_S)


def _raise_swallowed(swallowed: Any, previous_hook: Any) -> None:
    if swallowed.exc_type is KeyboardInterrupt:
        sys.unraisablehook = previous_hook
        _retry_later(N_WAITS)
    elif swallowed.exc_type is not AttributeError:  # which half-made objects raise as they go
        previous_hook(swallowed)
