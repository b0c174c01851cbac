from dataclasses import replace

import numpy as np
import pytest

from taxi import learned_map, zones
from taxi.schema import Trips, clean_miles
from taxi.zones import N_FOLDS, N_ZONES
from tests.conftest import make_trips, random_trips


@pytest.mark.parametrize("sorted_rows", [1, 37, 10_000])
@pytest.mark.parametrize("seed", range(10))
def test_medians_are_those_of_numpy_however_many_rows_are_sorted_at_once(
    seed: int, sorted_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zones, "SORTED_ROWS", sorted_rows)
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 30, 200)
    values = rng.normal(size=200).round(1)
    values[rng.random(200) < 0.3] = np.nan
    values[groups == 3] = np.nan
    found = zones.medians(groups, values, 31)
    for group in range(31):
        there = values[(groups == group) & ~np.isnan(values)]
        wanted = np.median(there) if len(there) else np.nan
        assert np.array_equal(found[group], wanted, equal_nan=True), group
    # values that belong to two groups each
    other = rng.permutation(groups)
    twice = zones.medians(np.concatenate([groups, other]), np.tile(values, 2), 31)
    at_once = zones.medians(np.stack([groups, other]), values, 31)
    assert at_once.tobytes() == twice.tobytes()


@pytest.mark.parametrize(
    ("miles", "clean"),
    [(0, np.nan), (-1, np.nan), (60, 60), (60.01, np.nan), (np.nan, np.nan), (0.01, 0.01)],
)
def test_only_distances_a_meter_can_be_believed_are_clean(miles: float, clean: float) -> None:
    found = clean_miles(make_trips(1, distance_miles=miles))
    assert np.array_equal(found, [clean], equal_nan=True)


def test_pairs_are_ordered_and_ids_the_tlc_does_not_have_are_one_unknown_zone() -> None:
    there = zones.pair_code(make_trips(1, pickup_zone=1, dropoff_zone=2))
    back = zones.pair_code(make_trips(1, pickup_zone=2, dropoff_zone=1))
    assert there != back
    odd = make_trips(4, pickup_zone=[0, -7, 266, 2**31 - 1], dropoff_zone=2)
    assert zones.pair_code(odd).tolist() == [2] * 4


def test_the_tables_count_trips_and_take_medians_of_clean_distances() -> None:
    trips = make_trips(
        5,
        pickup_zone=[1, 1, 1, 2, 4],
        dropoff_zone=[2, 2, 2, 1, 4],
        distance_miles=[1, 3, 1000, 5, 0],
    )
    tables = zones.fit_zone_tables(trips)
    assert tables.pairs.tolist() == [1002, 2001, 4004]
    assert tables.pair_trips.tolist() == [3, 1, 1]
    assert np.array_equal(tables.pair_miles, [2, 5, np.nan], equal_nan=True)
    assert tables.pickup_trips[[1, 2, 4, 5]].tolist() == [3, 1, 1, 0]
    assert tables.dropoff_trips[[1, 2, 4, 5]].tolist() == [1, 3, 1, 0]
    # zone 4 has no clean distance, so it gets the median of all trips
    assert tables.zone_miles[[1, 2, 4, 100]].tolist() == [3, 3, 3, 3]


def city(n: int, seed: int) -> tuple[np.ndarray, Trips]:
    """Place zones 1..n on a plane, and make one straight trip per ordered pair."""
    place = np.random.default_rng(seed).uniform(0, 10, (n, 2))
    pickup, dropoff = (ends.ravel() for ends in np.meshgrid(np.arange(n), np.arange(n)))
    apart = pickup != dropoff
    pickup, dropoff = pickup[apart], dropoff[apart]
    miles = np.hypot(*(place[pickup] - place[dropoff]).T)
    ends = {"pickup_zone": pickup + 1, "dropoff_zone": dropoff + 1}
    return place, make_trips(len(miles), **ends, distance_miles=miles)


@pytest.mark.parametrize("seed", range(3))
def test_the_map_of_a_made_up_city_is_recovered(seed: int) -> None:
    place, trips = city(30, seed)
    position = zones.fit_zone_tables(trips).position
    learnt = position[1:31]
    made, found = (
        np.hypot(*(p[:, None] - p[None, :]).transpose(2, 0, 1)).ravel() for p in (place, learnt)
    )
    assert np.corrcoef(made, found)[0, 1] > 0.99
    assert np.sqrt(np.mean((made - found) ** 2)) < 0.01
    assert np.isnan(np.delete(position, np.arange(1, 31), axis=0)).all()


def test_the_map_begins_where_ways_that_are_straight_lead() -> None:
    place = np.random.default_rng(1).uniform(0, 10, (12, 2))
    place[:, 0] *= 3
    straight = np.hypot(*(place[:, None] - place[None, :]).transpose(2, 0, 1))
    start = learned_map._spectral_start(straight)
    found = np.hypot(*(start[:, :, None] - start[:, None, :]))
    assert found == pytest.approx(straight, abs=1e-9)


def test_a_city_seen_in_part_and_by_crooked_roads_is_still_recovered() -> None:
    place, trips = city(60, 4)
    rng = np.random.default_rng(5)
    trips = trips.take(rng.random(len(trips)) < 0.3)
    crooked = trips.distance_miles * rng.lognormal(0, 0.1, len(trips))
    trips = replace(trips, distance_miles=crooked)
    learnt = zones.fit_zone_tables(trips).position[1:61]
    made, found = (
        np.hypot(*(p[:, None] - p[None, :]).transpose(2, 0, 1)).ravel() for p in (place, learnt)
    )
    assert np.corrcoef(made, found)[0, 1] > 0.99
    # it is 0.15 miles; the initial guess, from shortest paths, is 0.58 off
    assert np.sqrt(np.mean((made - found) ** 2)) < 0.25
    # from their middle, the longest extent along the first axis and what is farthest ahead
    assert learnt.mean(axis=0) == pytest.approx([0, 0], abs=1e-3)
    (along, between), (_, across) = np.cov(learnt.T)
    assert along > across
    assert between == pytest.approx(0, abs=1e-3)
    assert (learnt.max(axis=0) > -learnt.min(axis=0)).all()


def test_the_map_is_the_same_to_the_bit_each_time_and_in_any_order_of_trips() -> None:
    trips = random_trips(2_000, seed=1)
    again = trips.take(np.random.default_rng(0).permutation(len(trips)))
    first, second, turned = (zones.fit_zone_tables(t).position for t in (trips, trips, again))
    assert first.tobytes() == second.tobytes() == turned.tobytes()
    assert np.isfinite(first).any()


@pytest.mark.parametrize("zone", learned_map.UNKNOWN_ZONES)
def test_the_unknown_zones_are_counted_but_have_no_place(zone: int) -> None:
    _, trips = city(5, 0)
    far = make_trips(3, pickup_zone=[1, 2, 3], dropoff_zone=zone, distance_miles=30)
    joined = make_trips(
        len(trips) + 3,
        pickup_zone=np.append(trips.pickup_zone, far.pickup_zone),
        dropoff_zone=np.append(trips.dropoff_zone, far.dropoff_zone),
        distance_miles=np.append(trips.distance_miles, far.distance_miles),
    )
    tables = zones.fit_zone_tables(joined)
    assert tables.dropoff_trips[zone] == 3
    assert np.isnan(tables.position[zone]).all()
    assert tables.position.tobytes() == zones.fit_zone_tables(trips).position.tobytes()


@pytest.mark.parametrize(
    "trips",
    [
        make_trips(1),
        make_trips(1, distance_miles=np.nan),
        make_trips(3, distance_miles=np.nan),
        make_trips(3, dropoff_zone=74),
        make_trips(2, dropoff_zone=[75, 76]),
        make_trips(2, pickup_zone=[1, 3], dropoff_zone=[2, 4]),
        make_trips(3, pickup_zone=[1, 2, 3], dropoff_zone=[2, 3, 1], distance_miles=0.01),
        make_trips(3, pickup_zone=264, dropoff_zone=265),
        make_trips(3, pickup_zone=0, dropoff_zone=9_999),
    ],
    ids=str,
)
def test_tiny_inputs_give_tables_too(trips: Trips) -> None:
    tables = zones.fit_zone_tables(trips)
    assert tables.pair_trips.sum() == tables.pickup_trips.sum() == len(trips)
    assert tables.position.shape == (N_ZONES, 2)
    assert not np.isinf(tables.position).any()
    assert not np.isnan(tables.zone_miles).any()
    assert len(typical_miles(trips)) == len(trips)


def typical_miles(trips: Trips) -> np.ndarray:
    return zones.OutOfFold(trips).of_rows(0, zones.pair_code(trips))


def test_a_rows_own_distance_never_reaches_its_typical_one() -> None:
    trips = random_trips(300, seed=2, n_zones=8)
    before = typical_miles(trips)
    others_moved = 0
    for row in range(0, 300, 7):
        miles = trips.distance_miles.copy()
        miles[row] = 17.3
        after = typical_miles(replace(trips, distance_miles=miles))
        assert np.array_equal(before[row], after[row], equal_nan=True)
        others_moved += not np.array_equal(before, after, equal_nan=True)
    assert others_moved > 10  # the distances do affect the rows of other folds


def test_typical_distances_out_of_fold_are_medians_over_the_other_folds() -> None:
    trips = random_trips(200, seed=3, n_zones=6)
    found = typical_miles(trips)
    codes, miles, fold = zones.pair_code(trips), clean_miles(trips), np.arange(200) % N_FOLDS
    for row in range(200):
        rows = (codes == codes[row]) & (fold != fold[row]) & ~np.isnan(miles)
        wanted = np.median(miles[rows]) if rows.any() else np.nan
        assert np.array_equal(found[row], wanted, equal_nan=True)


def test_a_pair_ridden_once_has_no_typical_distance_for_its_own_row() -> None:
    trips = make_trips(3, pickup_zone=[1, 2, 2], dropoff_zone=9)
    assert np.array_equal(typical_miles(trips), [np.nan, 2.5, 2.5], equal_nan=True)


def test_neither_tables_nor_typical_distances_look_at_the_minutes() -> None:
    trips = random_trips(200, seed=4)
    without_minutes = make_trips(**{**vars(trips), "n": 200, "trip_minutes": np.nan})
    for name, values in vars(zones.fit_zone_tables(trips)).items():
        assert (
            values.tobytes() == getattr(zones.fit_zone_tables(without_minutes), name).tobytes()
        ), name
    typical = (typical_miles(t).tobytes() for t in (trips, without_minutes))
    assert len(set(typical)) == 1
