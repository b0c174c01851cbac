"""An interruption comes once, where it is neither lost nor leaves what is closed after it broken.

Python raises KeyboardInterrupt wherever it happens to be. In the middle of an import half a module
stays behind, and the run cannot be closed with it. In the middle of a query the store stays locked
until the exception is gone. A thread that a pool is starting, as MLflow's do for files, is never
told to end, and the process waits for it. And in a callback of the garbage collector it is printed
and forgotten.
"""

import os
import signal
import sys
from functools import partial
from types import FrameType
from typing import Any

from storage.environment import interrupts

# in whose files Python must not be for it to come
UNCUT = (
    "<frozen importlib",
    f"{os.sep}sqlalchemy{os.sep}",
    os.path.join("mlflow", "store", "artifact", ""),  # noqa: PTH118  a part of a path
)
POOL = os.path.join("concurrent", "futures", "thread.py")  # noqa: PTH118
WAIT_S, N_WAITS = 0.05, 200  # ten seconds; an sqlite store that others have locked takes longer


def raise_once() -> None:
    """Raise KeyboardInterrupt for the first signal that this process is interrupted by."""
    for number in (*interrupts(), signal.SIGALRM):
        signal.signal(number, _interrupt)


def _interrupt(signum: int, frame: FrameType | None, n_waits: int = N_WAITS) -> None:
    for number in interrupts():
        signal.signal(number, ignore)  # a second one would cut the clean-up short
    if n_waits and _is_uncut(frame):
        _later(n_waits - 1)
    else:
        sys.unraisablehook = partial(_raise_what_was_swallowed, said=sys.unraisablehook)
        raise KeyboardInterrupt


def ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing; SIG_IGN instead would leave a line where a signal waits meanwhile."""


def _is_uncut(frame: FrameType | None) -> bool:
    while frame:
        file, is_pool = frame.f_code.co_filename, frame.f_code.co_name == "submit"
        if any(part in file for part in UNCUT) or (is_pool and file.endswith(POOL)):
            return True
        frame = frame.f_back
    return False


def _later(n_waits: int) -> None:
    signal.signal(signal.SIGALRM, partial(_interrupt, n_waits=n_waits))
    signal.setitimer(signal.ITIMER_REAL, WAIT_S)


def _raise_what_was_swallowed(swallowed: Any, said: Any) -> None:
    if swallowed.exc_type is KeyboardInterrupt:
        sys.unraisablehook = said
        _later(N_WAITS)
    else:
        said(swallowed)
