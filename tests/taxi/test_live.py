"""The live level: what it follows and forgets, and that it never uses the future."""

import numpy as np
import pytest

from taxi import live
from taxi.live import EndedTrips, LiveState, NewTrips, Replay

START = np.datetime64("2021-01-01T00:00")
HOUR, MINUTE, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "m"), np.timedelta64(1, "D")
N_DAYS, N = 4, 6_000


def make_ended(n: int = N, seed: int = 1, slow: float = 1.3) -> EndedTrips:
    """Make trips over N_DAYS that take `slow` times as long as predicted."""
    rng = np.random.default_rng(seed)
    pickup = START + rng.integers(0, N_DAYS * 86_400, n).astype("m8[s]").astype("m8[us]")
    predicted = rng.uniform(5, 30, n)
    taken = np.clip(predicted * slow, 1, 60)
    return EndedTrips(
        pickup_at=pickup,
        dropoff_at=pickup + (taken * 60e6).astype("m8[us]"),
        pickup_zone=rng.integers(1, 40, n).astype(np.int32),
        dropoff_zone=rng.integers(1, 40, n).astype(np.int32),
        predicted=predicted,
    )


def make_state(clock: np.datetime64 = START) -> LiveState:
    position = np.random.default_rng(3).normal(size=(266, 2))
    return live.new_state("green", "abc", clock, position)


def ask(ended: EndedTrips, mode: str = "feed", delay: float = 0.0) -> NewTrips:
    """Ask for the factors of the same trips that ended."""
    known = live.known_until(ended.pickup_at, mode, delay)
    return NewTrips(ended.pickup_at, known, ended.pickup_zone, ended.dropoff_zone)


def run(
    ended: EndedTrips, asked: NewTrips | None = None, until: np.datetime64 | None = None
) -> Replay:
    return live.replay(make_state(), ended, asked or ask(ended), until or START + N_DAYS * DAY)


def test_a_slow_city_is_followed_within_hours() -> None:
    ended = make_ended(slow=1.3)
    factor = run(ended).factor
    late = ended.pickup_at > START + DAY
    assert factor[late].mean() == pytest.approx(1.3, abs=0.03)
    assert set(factor[ended.pickup_at < START + 5 * MINUTE]) == {1.0}  # no trip has ended yet


def test_a_zone_that_is_off_is_told_from_the_city() -> None:
    ended = make_ended(slow=1.0)
    taken = np.where(ended.pickup_zone == 7, 1.5, 1.0) * ended.predicted
    ended = ended._replace(dropoff_at=ended.pickup_at + (taken * 60e6).astype("m8[us]"))
    late = ended.pickup_at > START + 3 * DAY
    factor = run(ended).factor
    assert factor[late & (ended.pickup_zone == 7)].mean() > 1.1
    assert factor[late & (ended.pickup_zone != 7)].mean() == pytest.approx(1.0, abs=0.03)


def told_apart(by: str, trips: EndedTrips | NewTrips) -> np.ndarray:
    """By what a level tells n trips apart, as its name says, [n, 0 to 2]."""
    part = make_state().cluster_of_zone
    ends = {"pickup": trips.pickup_zone, "dropoff": trips.dropoff_zone}
    parts = {end: part[zone] for end, zone in ends.items()}
    columns = {"city": [], "cluster_pair": [*parts.values()]}
    columns |= {f"{end}_zone": [zone] for end, zone in ends.items()}
    columns |= {f"{end}_cluster": [one] for end, one in parts.items()}
    return np.array(columns[by]).reshape(-1, len(trips.pickup_at)).T


def one_by_one(ended: EndedTrips, asked: NewTrips) -> np.ndarray:
    """Add up all trips that had ended, for each new trip and level anew, with no state kept."""
    minutes = (ended.dropoff_at - ended.pickup_at) / MINUTE
    end_bin, at = ((t - START) // (5 * MINUTE) * 5 for t in (ended.dropoff_at, asked.pickup_at))
    known = (asked.known_until - START) / MINUTE
    # the new trips, and the ended ones themselves as they were counted
    until, now = np.append(known, end_bin), np.append(np.maximum(at, known), end_bin)
    expected, factor = ended.predicted, np.ones(len(at))
    for level in live.LEVELS:
        group = told_apart(level.grouping, ended)
        of_all = np.concatenate([told_apart(level.grouping, asked), group])
        counts = (of_all[:, None] == group).all(axis=2) & (end_bin < until[:, None])
        left = counts * np.exp(-(now[:, None] - end_bin) / level.time_constant_minutes)
        off = left @ np.clip(minutes - expected, -15, 15) / (left @ expected + level.prior)
        of_new, of_ended = np.split(1 + level.weight * off, [len(at)])
        factor, expected = factor * of_new, expected * of_ended
    return np.clip(factor, 0.5, 2.0)


@pytest.mark.parametrize(("mode", "delay"), [("feed", 0), ("feed", 17), ("nightly", 0)])
def test_a_factor_is_what_all_ended_trips_come_to_level_by_level(mode: str, delay: float) -> None:
    ended = make_ended(n=250, slow=1.4)
    taken = np.random.default_rng(7).uniform(0.7, 2.5, 250) * ended.predicted  # some beyond 15 min
    taken = np.clip(taken, 1, 60)
    ended = ended._replace(dropoff_at=ended.pickup_at + (taken * 60e6).astype("m8[us]"))
    asked = ask(ended, mode, delay)
    assert np.isnan(run(ended, asked).factor).sum() == (asked.known_until < START).sum()
    after = asked.known_until >= START
    asked = NewTrips(*(column[after] for column in asked))
    until = START + (N_DAYS + 1) * DAY
    assert run(ended, asked, until).factor == pytest.approx(one_by_one(ended, asked), rel=1e-9)


def test_a_trips_own_duration_does_not_reach_its_prediction() -> None:
    ended = make_ended()
    factor = run(ended).factor
    for row in range(0, N, 500):
        dropoff = ended.dropoff_at.copy()
        dropoff[row] += 17 * MINUTE
        other = run(ended._replace(dropoff_at=dropoff)).factor
        assert other[row].tobytes() == factor[row].tobytes()


@pytest.mark.parametrize(
    ("mode", "delay"), [("feed", 0), ("feed", 15), ("feed", 60), ("nightly", 0)]
)
def test_what_ends_after_it_is_known_leaves_a_prediction_as_it_is_to_the_bit(
    mode: str, delay: float
) -> None:
    ended = make_ended()
    asked = ask(ended, mode, delay)
    factor = run(ended, asked).factor
    row = int(np.argsort(ended.pickup_at)[N // 2])
    known = ended.pickup_at[row] - np.timedelta64(int(delay), "m")
    if mode == "nightly":
        known = known.astype("datetime64[D]").astype("datetime64[us]")
    later = live.floor_to_bin(ended.dropoff_at) >= live.floor_to_bin(known)
    assert later.any()
    predicted = np.where(later, ended.predicted * 2, ended.predicted)
    changed = ended._replace(
        dropoff_at=np.where(later, ended.dropoff_at + 9 * MINUTE, ended.dropoff_at),
        predicted=predicted,
    )
    other = run(changed, asked).factor
    assert other[row].tobytes() == factor[row].tobytes()
    assert not np.array_equal(other, factor)  # later trips do depend on it
    without = run(ended.take(~later), asked).factor
    assert without[row].tobytes() == factor[row].tobytes()


def test_a_feed_in_any_order_and_with_repetitions_says_the_same_to_the_bit() -> None:
    ended = make_ended()
    # in the TLC's files several trips end in the same second
    ended = ended._replace(dropoff_at=ended.dropoff_at.astype("M8[m]").astype("M8[us]"))
    asked = ask(ended)
    wanted = run(ended, asked)
    rng = np.random.default_rng(5)
    twice = ended.take(np.concatenate([np.arange(N), rng.integers(0, N, N // 2)]))
    assert np.array_equal(run(twice, asked).factor, wanted.factor)
    shuffled = run(twice.take(rng.permutation(len(twice.predicted))), asked)
    assert np.array_equal(shuffled.factor, wanted.factor)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"dropoff_at": np.datetime64("NaT", "us")},
        {"dropoff_at": START.astype("datetime64[us]") + 90 * DAY},
        {"dropoff_at": START.astype("datetime64[us]") - DAY},
        {"pickup_at": np.datetime64("NaT", "us")},
        {"predicted": np.nan},
        {"predicted": -3.0},
        {"predicted": np.inf},
    ],
    ids=["no drop-off", "months long", "ends before it begins", "no pickup", "nan", "neg", "inf"],
)
def test_trips_that_cannot_have_been_do_not_count(spoilt: dict[str, object]) -> None:
    ended = make_ended(n=500)
    impossible = make_ended(n=300, seed=2)._asdict()
    (name, value), *_ = spoilt.items()
    impossible[name] = np.full(300, value, impossible[name].dtype)
    both = EndedTrips(*(np.concatenate([a, impossible[k]]) for k, a in ended._asdict().items()))
    assert np.array_equal(run(both, ask(ended)).factor, run(ended).factor)


def test_zones_that_nobody_knows_follow_the_city() -> None:
    ended = make_ended()
    strange = ask(ended)._replace(
        pickup_zone=np.full(N, -5, np.int32), dropoff_zone=np.full(N, 999, np.int32)
    )
    late = ended.pickup_at > START + DAY
    assert run(ended, strange).factor[late].mean() == pytest.approx(1.3, abs=0.05)


def test_a_feed_that_stops_leads_back_to_the_model() -> None:
    ended = make_ended()
    state = run(ended.take(ended.dropoff_at < START + 2 * DAY)).state
    at = START + 4 * DAY + np.array([0, 1, 30, 365]) * DAY
    ones = np.full(4, 7, np.int32)
    asked = NewTrips(at.astype("datetime64[us]"), at, ones, ones)
    factor = live.factor_now(state, asked)
    assert factor[0] > factor[1] > factor[2] > factor[3] >= 1
    assert factor[2] == pytest.approx(1, abs=0.02)


def test_two_stretches_come_to_what_one_does() -> None:
    ended = make_ended()
    whole = run(ended)
    middle = START + DAY + 7 * HOUR
    first = live.replay(make_state(), ended, ask(ended.take(ended.pickup_at < middle)), middle)
    rest = ended.take(ended.pickup_at >= middle)
    # all trips again: those that ended before the clock are already counted
    second = live.replay(first.state, ended, ask(rest), START + N_DAYS * DAY)
    assert second.factor == pytest.approx(whole.factor[ended.pickup_at >= middle], abs=1e-12)
    for one, other in zip(second.state.sums, whole.state.sums, strict=True):
        assert one == pytest.approx(other)


def test_a_trip_from_before_the_state_has_no_factor() -> None:
    ended = make_ended()
    state = make_state(START + DAY)
    factor = live.replay(state, ended, ask(ended), START + N_DAYS * DAY).factor
    assert np.array_equal(np.isnan(factor), ended.pickup_at < START + DAY)


def test_no_feed_takes_a_factor_out_of_its_bounds() -> None:
    ended = make_ended()._replace(predicted=np.full(N, 0.01))
    factor = run(ended).factor
    assert factor.min() >= live.FACTORS[0]
    assert factor.max() == live.FACTORS[1]


def test_nothing_that_is_given_is_changed() -> None:
    ended, state = make_ended(), make_state()
    before = [values.copy() for values in (*ended, *state.sums)]
    live.replay(state, ended, ask(ended), START + N_DAYS * DAY)
    for one, other in zip(before, (*ended, *state.sums), strict=True):
        assert one.tobytes() == other.tobytes()


def test_clusters_are_16_parts_of_the_map_with_as_many_zones_each() -> None:
    position = np.random.default_rng(3).normal(size=(266, 2))
    position[[0, 264, 265]] = np.nan
    clusters = live.cluster_zones(position)
    assert clusters[[0, 264, 265]].tolist() == [live.N_CLUSTERS] * 3
    sizes = np.bincount(clusters)[: live.N_CLUSTERS]
    assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(clusters, live.cluster_zones(position.copy()))


@pytest.mark.parametrize("n_placed", [0, 1, 5])
def test_a_map_of_few_zones_or_none_has_clusters_too(n_placed: int) -> None:
    position = np.full((266, 2), np.nan)
    position[1 : 1 + n_placed] = np.arange(2 * n_placed).reshape(-1, 2)
    clusters = live.cluster_zones(position if n_placed else None)
    assert (clusters < live.N_CLUSTERS).sum() == n_placed
    assert clusters.max() == live.N_CLUSTERS
