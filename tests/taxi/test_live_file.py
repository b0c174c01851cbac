"""The live state as a file: what a server reads from it, and what it refuses."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from taxi import TripError, live, live_file
from taxi.live import LiveState
from tests.conftest import make_trips
from tests.taxi.test_live import DAY, HOUR, MINUTE, N_DAYS, START, make_ended, run

NOW = START + N_DAYS * DAY + 20 * MINUTE


@pytest.fixture(scope="module")
def state() -> LiveState:
    return run(make_ended()).state


def read(content: bytes) -> LiveState:
    return live_file.read_state(content, taxi="green", model_sha256="abc")


def test_a_state_comes_back_from_its_file_to_the_bit(state: LiveState) -> None:
    content = live_file.write_state(state)
    assert len(content) < 100_000
    again = read(content)
    assert (again.taxi, again.model_sha256, again.clock) == ("green", "abc", state.clock)
    assert live_file.write_state(again) == content
    for one, other in zip(again.sums, state.sums, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about: about.update(version=2), "it is of version 2, this code reads 1"),
        (lambda about: about.update(taxi="yellow"), "it is of yellow trips, not of green ones"),
        (lambda about: about.update(model_sha256="ab" * 32), "of another model, abababababab"),
        (lambda about: about.pop("clock"), "its values cannot be read"),
        (lambda about: about.update(clock="soon"), "its values cannot be read"),
        (lambda about: about.update(clock=None), "its values cannot be read"),
        (lambda about: about["sums"].update(days=[[1.0], [float("nan")]]), "sums of 'days'"),
        (lambda about: about["sums"].update(days=[[1.0], [-1.0]]), "are negative"),
        (lambda about: about["sums"].update(days=[1.0]), "sums of 'days'"),
        (lambda about: about["sums"].update(days=[[10**400], [1.0]]), "its values cannot be read"),
        (lambda about: about.update(clock=10**400), "its values cannot be read"),
        (lambda about: about.update(cluster_of_zone=[99] * 266), "cluster_of_zone"),
        (lambda about: about["cluster_of_zone"].__setitem__(74, -1), "cluster_of_zone"),
        (lambda about: about["cluster_of_zone"].append(float("inf")), "its values cannot be read"),
        (lambda about: about.clear(), "it is not whole JSON of a live state"),
    ],
)
def test_a_file_that_is_not_of_this_model_is_refused(
    state: LiveState, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    about = json.loads(live_file.write_state(state))
    change(about)
    with pytest.raises(TripError, match=said):
        read(json.dumps(about).encode())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_that_is_cut_is_refused(state: LiveState, share: float) -> None:
    content = live_file.write_state(state)
    with pytest.raises(TripError, match="not whole JSON"):
        read(content[: int(len(content) * share)])


def test_a_file_that_is_no_object_is_refused() -> None:
    for content in (b"[]", b"3", b"null", b"\xff\xfe", b"{}", b"[" * 100_000):
        with pytest.raises(TripError, match="not whole JSON"):
            read(content)


def test_a_state_from_the_future_or_too_old_is_not_used(state: LiveState) -> None:
    skewed = state.clock - MINUTE  # clocks may differ
    assert (live_file.reason_unusable(state, NOW), live_file.reason_unusable(state, skewed)) == (
        "",
        "",
    )
    answer = live_file.apply_live(state, make_trips(1, pickup_at=NOW), np.ones(1), skewed)
    assert answer.age_minutes == 0
    for now, reason in (
        (state.clock - HOUR, "it is from the future: 2021-01-05T00:00"),
        (NOW + 3 * DAY, "it is too old: 2021-01-05T00:00"),
    ):
        assert live_file.reason_unusable(state, now) == reason
        minutes, age = live_file.apply_live(state, make_trips(1, pickup_at=now), np.ones(1), now)
        assert minutes == 1
        assert np.isnan(age)


def test_an_answer_is_brought_to_the_level_and_tells_the_states_age(state: LiveState) -> None:
    trips = make_trips(2, pickup_at=NOW)
    minutes, age = live_file.apply_live(state, trips, np.array([10.0, 20.0]), NOW)
    assert minutes[0] == pytest.approx(13, abs=0.7)
    assert minutes[1] == pytest.approx(2 * minutes[0])
    assert age.tolist() == [20, 20]


def test_an_answer_without_a_state_is_the_models_own() -> None:
    predicted = np.array([10.0, 20.0])
    minutes, age = live_file.apply_live(None, make_trips(2), predicted, NOW)
    assert minutes.tolist() == [10, 20]
    assert np.isnan(age).all()


def test_a_trip_of_the_past_is_answered_by_the_model_alone(state: LiveState) -> None:
    trips = make_trips(3, pickup_at=[START, state.clock - 10 * MINUTE, NOW])
    minutes, age = live_file.apply_live(state, trips, np.full(3, 10.0), NOW)
    assert minutes[0] == 10
    assert minutes[1] > 12
    assert np.isnan(age).tolist() == [True, False, False]


def test_a_trip_planned_for_later_hears_less_of_today(state: LiveState) -> None:
    trips = make_trips(3, pickup_at=[NOW, NOW + 3 * HOUR, NOW + 60 * DAY])
    minutes, _ = live_file.apply_live(state, trips, np.full(3, 10.0), NOW)
    assert minutes[0] > minutes[1] > minutes[2]
    assert minutes[2] == pytest.approx(10, abs=0.1)


def test_one_row_is_answered_as_among_many(state: LiveState) -> None:
    trips = make_trips(50, pickup_at=NOW, pickup_zone=np.arange(50))
    together = live_file.apply_live(state, trips, np.full(50, 10.0), NOW).minutes
    alone = [
        live_file.apply_live(state, trips.take(np.array([n])), np.full(1, 10.0), NOW).minutes[0]
        for n in range(50)
    ]
    assert np.array(alone).tobytes() == together.tobytes()


def test_the_citys_clock_is_within_a_day_of_utc() -> None:
    utc = np.datetime64("now", "us")
    assert 3 * HOUR <= utc - live_file.new_york_now() <= 6 * HOUR


def test_the_levels_have_names_of_their_own() -> None:
    names = [level.name for level in live.LEVELS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("utc", "local"),
    [
        ("2026-11-01T05:20", "2026-11-01T01:20"),  # the first time
        ("2026-11-01T06:20", "2026-11-01T02:00"),  # the second
        ("2026-11-01T07:20", "2026-11-01T02:20"),
        ("2026-03-08T07:20", "2026-03-08T03:20"),
    ],
)
def test_a_state_is_never_from_the_future_for_the_hour_that_autumn_repeats(
    utc: str, local: str
) -> None:
    moment = datetime.fromisoformat(f"{utc}+00:00")
    assert live_file.to_new_york_time(moment) == np.datetime64(local)
