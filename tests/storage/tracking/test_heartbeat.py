"""The heartbeat of a step, and what happens to the step when its pipeline dies."""

import os
import signal
import threading

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from storage.tracking import heartbeat, processes
from storage.tracking.heartbeat import Heartbeat
from storage.tracking.tags import HEARTBEAT, STARTED

DEAD = processes.process_tags() | {STARTED: "1000000000"}


class Signals:
    """The signals that a process was sent, in order; the first one may end it properly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[int] = []
        self.arrived = threading.Event()
        monkeypatch.setattr(os, "kill", self.kill)

    def kill(self, pid: int, number: int) -> None:
        assert pid == os.getpid()
        self.sent.append(number)
        self.arrived.set()


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Signals:
    monkeypatch.setattr(heartbeat, "PARENT_CHECK_S", 0.001)
    return Signals(monkeypatch)


def beats(monkeypatch: pytest.MonkeyPatch, n: int, error: Exception | None = None) -> list[str]:
    """Make a run show n heartbeats; return what was written."""
    written: list[str] = []
    enough = threading.Event()

    def set_tag(_: MlflowClient, run_id: str, key: str, value: str) -> None:
        written.append(f"{run_id} {key} {float(value) > 0}")
        if len(written) == n:
            enough.set()
        if error:
            raise error

    monkeypatch.setattr(MlflowClient, "set_tag", set_tag)
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.001)
    life = Heartbeat("c0ffee", {})
    assert enough.wait(60)
    life.stop()
    life.thread.join()
    return written


def test_a_run_shows_signs_of_life_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(beats(monkeypatch, 3)) == {f"c0ffee {HEARTBEAT} True"}


def test_a_store_that_is_away_for_a_while_ends_no_signs_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(beats(monkeypatch, 3, MlflowException("nobody answers"))) >= 3


def test_many_signs_of_life_must_be_missing_before_a_run_is_dead() -> None:
    assert processes.SILENCE_S >= 5 * heartbeat.BEAT_S


def test_a_step_whose_pipeline_has_died_ends_as_if_interrupted(signals: Signals) -> None:
    life = Heartbeat("c0ffee", DEAD)
    assert signals.arrived.wait(60)
    life.stop()  # closing the run does this
    life.thread.join()
    assert signals.sent == [signal.SIGTERM]


def test_a_step_that_hangs_then_is_killed(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "GRACE_S", 0.001)
    Heartbeat("c0ffee", DEAD).thread.join()
    assert signals.sent == [signal.SIGTERM, signal.SIGKILL]


@pytest.mark.parametrize("above", [{}, processes.process_tags()], ids=["nothing above", "alive"])
def test_a_step_whose_pipeline_lives_or_that_has_none_goes_on(
    signals: Signals, above: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    is_dead = processes.is_dead

    def look(tags: dict[str, str]) -> bool:
        looked.set()
        return is_dead(tags)

    monkeypatch.setattr(processes, "is_dead", look)
    monkeypatch.setattr(heartbeat, "BEAT_S", 60.0 if above else 0.001)
    monkeypatch.setattr(Heartbeat, "beat", lambda *_: None)
    life = Heartbeat("c0ffee", above)
    assert looked.wait(60)
    life.stop()
    life.thread.join()
    assert signals.sent == []
