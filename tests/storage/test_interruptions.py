"""Where an interruption is raised, and where it is deferred."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.checkout import ROOT

BEGIN = """
import os, signal, sys, time, weakref
from storage import interruptions
interruptions.raise_on_first_signal()
"""
INTERRUPT = "os.kill(os.getpid(), signal.SIGTERM)"


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code that interrupts itself."""
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code.replace("INTERRUPT", INTERRUPT)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(map(str, (ROOT, *path)))},
    )


def test_a_module_is_imported_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        f"import os, signal, time\n{INTERRUPT}\ntime.sleep(0.3)\nwhole = True\n"
    )
    wait = "    import late\n    time.sleep(9)"
    done = run(f"try:\n{wait}\nexcept KeyboardInterrupt:\n    print(late.whole)", tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_pool_tells_each_thread_to_end_that_it_has_started() -> None:
    done = run("""
import threading
from concurrent.futures import ThreadPoolExecutor
start, pool = threading.Thread.start, ThreadPoolExecutor(1)
def start_interrupted(thread):
    start(thread)
    INTERRUPT
threading.Thread.start = start_interrupted
try:
    pool.submit(int)
    time.sleep(9)
except KeyboardInterrupt:
    print("came")
""")
    assert (done.stdout, done.stderr) == ("came\n", "")


def test_a_pool_gives_back_what_it_has_locked() -> None:
    done = run("""
from concurrent.futures import ThreadPoolExecutor, as_completed
try:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(time.sleep, 0.1)
        locked = future._condition.acquire
        future._condition.acquire = lambda: (locked(), INTERRUPT)
        list(as_completed([future]))
        time.sleep(9)
except KeyboardInterrupt:
    print("came")
""")
    assert (done.stdout, done.stderr) == ("came\n", "")


def test_it_does_not_wait_for_the_threads_of_a_pool() -> None:
    done = run("""
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
over = threading.Event()
pool = ThreadPoolExecutor(1)
future = pool.submit(over.wait)
threading.Timer(0.2, lambda: INTERRUPT).start()
begun = time.monotonic()
try:
    list(as_completed([future]))
except KeyboardInterrupt:
    print(time.monotonic() - begun < 5)
over.set()
""")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_folder_is_removed_to_its_end() -> None:
    done = run("""
import tempfile
close = os.close
def close_interrupted(file):
    close(file)
    INTERRUPT
try:
    with tempfile.TemporaryDirectory() as folder:
        os.close = close_interrupted
    os.close = close
    time.sleep(9)
except KeyboardInterrupt:
    print(os.path.exists(folder))
""")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_callback_does_not_swallow_it() -> None:
    done = run("""
class Held: pass
held = Held()
def callback(_):
    INTERRUPT
reference = weakref.ref(held, callback)
try:
    del held
    time.sleep(9)
except KeyboardInterrupt:
    print("came")
""")
    assert (done.stdout, done.stderr) == ("came\n", "")


def test_what_it_leaves_half_made_does_not_complain() -> None:
    done = run("""
class Made:
    def __init__(self):
        INTERRUPT
        time.sleep(9)
        self.file = sys.stdin
    def __del__(self): self.file.close()
try:
    Made()
except KeyboardInterrupt:
    print("came")
""")
    assert (done.stdout, done.stderr) == ("came\n", "")


def test_other_mistakes_in_a_callback_are_said() -> None:
    done = run("""
class Held:
    def __del__(self): 1 / 0
try:
    INTERRUPT
except KeyboardInterrupt:
    Held()
""")
    assert "ZeroDivisionError" in done.stderr


def test_a_second_one_does_not_cut_the_clean_up_short() -> None:
    done = run("""
try:
    INTERRUPT
except KeyboardInterrupt:
    INTERRUPT
    os.kill(os.getpid(), signal.SIGINT)
    print("closed")
""")
    assert (done.stdout, done.stderr) == ("closed\n", "")


ASK = """
interruptions.WAIT_S = 0.001
def asking(code):
    exec(compile(code, "/lib/sqlalchemy/engine.py", "exec"), globals())
try:
    asking(CODE)
    time.sleep(9)
except KeyboardInterrupt:
    print("came")
"""


def test_a_query_is_asked_to_its_end() -> None:
    query = f"{INTERRUPT}; time.sleep(0.1); print('asked')"
    assert run(ASK.replace("CODE", repr(query))).stdout == "asked\ncame\n"


def test_it_does_not_wait_for_ever() -> None:
    query = f"{INTERRUPT}\nwhile True: time.sleep(0.01)"
    assert run(ASK.replace("CODE", repr(query))).stdout == "came\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_each_signal_interrupts(number: int) -> None:
    done = run(
        f"try:\n    os.kill(os.getpid(), {int(number)})\nexcept KeyboardInterrupt:\n    print(1)"
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
