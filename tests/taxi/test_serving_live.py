"""A served model with a live level, from a state file that a job replaces while it is served."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from storage.tracking import models
from taxi import live, live_file
from taxi.model import TripModel
from tests.taxi.test_serving import experiment, frame, model, post, uri

__all__ = ["experiment", "model", "uri"]

ASKED = {"live": True}
NOW = live_file.new_york_now()
HOUR, MINUTE = np.timedelta64(1, "h"), np.timedelta64(1, "m")


class Watched:
    """A served model and the state file beside it."""

    def __init__(self, uri: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NYC_TAXI_LIVE_STATE", str(path))
        self.path, self.model = path, models.load(uri)
        self.sha256 = models.digest(self.model, "")
        self.served = self.model.unwrap_python_model()

    def put(self, slow: float, **changes: Any) -> bytes:
        """Replace the state: trips in the city take `slow` times as long as predicted."""
        state = live.new_state("green", self.sha256, live.floor_to_bin(NOW - 15 * MINUTE), None)
        sums = [values.copy() for values in state.sums]
        sums[0][:, 0] = (slow - 1) * 1e9, 1e9
        state = replace(state, sums=tuple(sums), **changes)
        content = live_file.write_state(state)
        unfinished = self.path.with_suffix(".new")
        unfinished.write_bytes(content)
        unfinished.replace(self.path)
        return content

    def look_again(self) -> None:
        """Let the time pass after which the server looks at the file again."""
        watched = self.served.live_file
        watched._last = watched._last._replace(at=-1e9)

    def ask(self, rows: int = 3) -> pd.DataFrame:
        """Predict trips that begin now."""
        self.look_again()
        return self.model.predict(now_frame(rows), params=ASKED)


def now_frame(n: int) -> pd.DataFrame:
    return frame().iloc[:n].assign(lpep_pickup_datetime=pd.Timestamp(NOW))


@pytest.fixture
def watched(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(uri, tmp_path / "live.json", monkeypatch)


def test_an_answer_follows_the_state_that_a_job_replaces(watched: Watched) -> None:
    plain = watched.model.predict(now_frame(3))
    for slow in (1.5, 1.2):
        watched.put(slow)
        answer = watched.ask()
        assert list(answer) == ["prediction", "live_age_minutes"]
        assert answer["prediction"].to_numpy() == pytest.approx(plain * slow, rel=1e-3)
        assert answer["live_age_minutes"].between(15, 24 * 60).all()


def test_who_does_not_ask_gets_the_models_own_vector(watched: Watched) -> None:
    plain = watched.model.predict(now_frame(3))
    watched.put(1.5)
    assert isinstance(plain, np.ndarray)
    for params in (None, {}, {"live": False}):
        assert watched.model.predict(now_frame(3), params=params).tobytes() == plain.tobytes()


def test_the_file_is_not_looked_at_again_within_half_a_minute(watched: Watched) -> None:
    watched.put(1.5)
    first = watched.ask()
    watched.put(1.2)
    again = watched.model.predict(now_frame(3), params=ASKED)
    assert again["prediction"].equals(first["prediction"])
    assert not watched.ask()["prediction"].equals(first["prediction"])


def test_a_file_that_has_not_changed_is_not_read_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.put(1.5)
    first = watched.ask()
    monkeypatch.setattr(watched.served.live_file, "read", None)
    assert watched.ask()["prediction"].equals(first["prediction"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_sha256": "ab" * 32}, "it is of another model, abababababab"),
        ({"taxi": "yellow"}, "it is of yellow trips, not of green ones"),
        ({"clock": live.floor_to_bin(NOW + 2 * HOUR)}, "it is from the future"),
        ({"clock": live.floor_to_bin(NOW - 80 * HOUR)}, "it is too old"),
        (None, "it is not whole JSON of a live state"),
    ],
    ids=["another model", "another taxi", "from the future", "too old", "cut"],
)
def test_a_state_that_cannot_be_used_is_left_out_and_said_once(
    watched: Watched, caplog: pytest.LogCaptureFixture, changes: dict[str, Any] | None, reason: str
) -> None:
    content = watched.put(1.5, **(changes or {}))
    if changes is None:
        watched.path.write_bytes(content[:-99])
    with caplog.at_level(logging.WARNING):
        answers = [watched.ask(), watched.ask()]
    for answer in answers:
        assert (
            answer["prediction"].to_numpy().tobytes()
            == watched.model.predict(now_frame(3)).tobytes()
        )
        assert answer["live_age_minutes"].isna().all()
    (said,) = (record.getMessage() for record in caplog.records if "No live level" in record.msg)
    assert reason in said
    watched.put(1.5)
    assert watched.ask()["live_age_minutes"].notna().all()


@pytest.mark.parametrize("path", ["", "nowhere/live.json", "."])
def test_a_server_without_a_state_answers_all_the_same(
    uri: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("NYC_TAXI_LIVE_STATE", path)
    answer = models.load(uri).predict(now_frame(2), params=ASKED)
    assert answer["live_age_minutes"].isna().all()


def test_a_param_that_is_no_flag_is_the_callers_fault(watched: Watched) -> None:
    with pytest.raises(MlflowException, match="live"):
        watched.model.predict(now_frame(1), params={"live": "yes"})
    with pytest.raises(MlflowException, match="Param 'live': got 1; send true or false"):
        watched.served.predict(None, now_frame(1), {"live": 1})


def test_threads_see_the_old_state_or_the_new_one(watched: Watched) -> None:
    plain = watched.model.predict(now_frame(1))[0]
    slow = [1.5, 1.2, 0.8]
    contents = [watched.put(value) for value in slow]

    def replace_and_ask(n: int) -> float:
        unfinished = watched.path.with_suffix(f".{n}")
        unfinished.write_bytes(contents[n % 3])
        unfinished.replace(watched.path)
        watched.look_again()
        answer = watched.served.predict(None, now_frame(1), ASKED)
        return float(answer["prediction"].iloc[0] / plain)

    with ThreadPoolExecutor(8) as executor:
        ratios = list(executor.map(replace_and_ask, range(60)))
    assert {round(ratio, 2) for ratio in ratios} <= {*slow, 1.0}


def test_a_state_read_here_is_the_one_that_the_served_copy_reads(
    watched: Watched, model: TripModel
) -> None:
    content = watched.put(1.3)
    state = model.read_live(content, watched.sha256)
    here = model.answer(now_frame(3), ASKED, state=state)
    assert isinstance(here, pd.DataFrame)
    assert here["prediction"].equals(watched.ask()["prediction"])
    assert json.loads(content)["model_sha256"] == watched.sha256


def test_the_model_server_sends_the_age_and_null_where_no_state_is_used(watched: Watched) -> None:
    past = post(watched.model, {"live": True, "quantiles": [0.5]})
    assert {row["live_age_minutes"] for row in past} == {None}
    watched.put(1.5)
    watched.look_again()
    # trips of 2021, while the state is about now
    assert post(watched.model, {"live": True, "quantiles": [0.5]}) == past
    assert set(past[0]) == {"prediction", "live_age_minutes", "p50"}
