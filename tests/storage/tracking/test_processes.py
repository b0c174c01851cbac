"""Whether the process that worked on a run is still alive."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count

import pytest

from storage.tracking import processes
from storage.tracking.tags import HOST, PID, STARTED

Other = tuple[subprocess.Popen[str], dict[str, str]]
TELL = """
from storage.tracking import processes
print(processes.process_tags(), flush=True)
input()
"""


@pytest.fixture
def other() -> Iterator[Other]:
    """Another process, and the tags that it writes about itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    tags = ast.literal_eval(process.stdout.readline())
    yield process, tags
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_process_that_runs_is_not_dead(other: Other) -> None:
    process, tags = other
    assert tags[PID] == str(process.pid)
    assert not processes.is_dead(tags)
    assert not processes.is_dead(processes.process_tags())


def test_a_process_is_dead_once_it_is_killed_even_before_anybody_reaps_it(
    other: Other,
) -> None:
    process, tags = other
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert processes.is_dead(tags)
    process.wait()
    assert processes.is_dead(tags)


def test_another_process_under_the_same_id_does_not_count_as_alive() -> None:
    reused = processes.process_tags() | {STARTED: "1000000000"}
    assert processes.is_dead(reused)


@pytest.mark.parametrize("missing", [HOST, PID, STARTED])
def test_what_names_no_process_is_never_called_dead(missing: str) -> None:
    tags = processes.process_tags() | {STARTED: "1000000000"}
    assert processes.is_dead(tags)
    del tags[missing]
    assert not processes.is_dead(tags)


def test_a_process_of_another_host_or_container_is_never_called_dead() -> None:
    tags = processes.process_tags() | {STARTED: "1000000000"}
    assert not processes.is_dead(tags | {HOST: "elsewhere"})


@pytest.mark.parametrize("tells_boots", [True, False])
def test_a_process_is_known_where_python_draws_the_address_of_the_network_card(
    monkeypatch: pytest.MonkeyPatch, tells_boots: bool
) -> None:
    drawn = count(0x7F85B477C055)  # RFC 9562: the first octet's lowest bit marks a random node id
    monkeypatch.setattr(processes.uuid, "getnode", lambda: next(drawn))
    if not tells_boots:
        monkeypatch.setattr(processes.Path, "is_file", lambda _: False)
    tags = processes.process_tags()
    assert not processes.is_dead(tags)
    assert processes.is_dead(tags | {STARTED: "1000000000"})


# --- other systems than Linux


def test_the_cores_of_this_process_are_counted_where_the_system_says_which_it_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert processes.n_cores() == 2


@pytest.mark.parametrize(("there", "n_cores"), [(6, 6), (None, 1)])
def test_all_cores_count_on_macos(
    monkeypatch: pytest.MonkeyPatch, there: int | None, n_cores: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: there)
    assert processes.n_cores() == n_cores


def test_a_process_is_known_where_there_are_no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.Path, "is_symlink", lambda _: False)
    tags = processes.process_tags()
    assert tags[HOST].endswith(" pid")
    assert not processes.is_dead(tags)
    assert processes.is_dead(tags | {STARTED: "1000000000"})


def test_a_process_that_the_system_tells_nothing_of_is_not_called_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tags = processes.process_tags()

    def deny(_: object) -> float:
        raise processes.psutil.AccessDenied

    monkeypatch.setattr(processes.psutil.Process, "create_time", deny)
    assert not processes.is_dead(tags)
