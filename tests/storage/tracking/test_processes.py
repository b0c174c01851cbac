"""Whether the process that worked on a run still lives."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from storage.tracking import processes

Other = tuple[subprocess.Popen[str], dict[str, str]]
TELL = "from storage import processes; print(processes.tags(), flush=True); input()"


@pytest.fixture
def other() -> Iterator[Other]:
    """Another process, and the tags it gives itself."""
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
    assert tags[processes.PID] == str(process.pid)
    assert not processes.is_dead(tags)
    assert not processes.is_dead(processes.tags())


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
    reused = processes.tags() | {processes.STARTED: "1000000000"}
    assert processes.is_dead(reused)


@pytest.mark.parametrize("missing", [processes.HOST, processes.PID, processes.STARTED])
def test_what_names_no_process_is_never_called_dead(missing: str) -> None:
    tags = processes.tags() | {processes.STARTED: "1000000000"}
    assert processes.is_dead(tags)
    del tags[missing]
    assert not processes.is_dead(tags)


def test_a_process_of_another_host_or_container_is_never_called_dead() -> None:
    tags = processes.tags() | {processes.STARTED: "1000000000"}
    assert not processes.is_dead(tags | {processes.HOST: "elsewhere"})
