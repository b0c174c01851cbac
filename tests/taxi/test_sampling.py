"""A sample is bounded, the same for the same seed, and spread over all the trips."""

import numpy as np
import pytest

from taxi.sampling import sample_rows_evenly, sample_trips_evenly
from taxi.spaces import sample_size_for
from tests.conftest import random_trips


@pytest.mark.parametrize(("n_rows", "n_drawn"), [(10, 10), (10, 9), (1_000, 7), (38_000_000, 999)])
def test_a_draw_takes_one_row_of_each_stretch_and_none_twice(n_rows: int, n_drawn: int) -> None:
    rows = sample_rows_evenly(n_rows, n_drawn, seed=1)
    assert len(rows) == n_drawn
    assert (np.diff(rows) > 0).all()
    edges = np.arange(n_drawn + 1) * n_rows // n_drawn
    assert ((edges[:-1] <= rows) & (rows < edges[1:])).all()


def test_a_draw_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first = sample_rows_evenly(10_000, 500, seed=1)
    assert first.tolist() == sample_rows_evenly(10_000, 500, seed=1).tolist()
    assert first.tolist() != sample_rows_evenly(10_000, 500, seed=2).tolist()


def test_every_row_may_be_drawn() -> None:
    drawn = {int(row) for seed in range(60) for row in sample_rows_evenly(13, 4, seed=seed)}
    assert drawn == set(range(13))


@pytest.mark.parametrize("max_rows", [0, 30, 31])
def test_trips_that_are_few_enough_are_all_taken_as_they_are(max_rows: int) -> None:
    trips = random_trips(30, seed=1)
    assert sample_trips_evenly(trips, max_rows, seed=1) is trips


def test_a_sample_holds_whole_trips() -> None:
    trips = random_trips(300, seed=1)
    drawn = sample_trips_evenly(trips, 20, seed=3)
    rows = sample_rows_evenly(300, 20, seed=3)
    assert drawn.trip_minutes.tolist() == trips.trip_minutes[rows].tolist()
    assert drawn.pickup_zone.tolist() == trips.pickup_zone[rows].tolist()


@pytest.mark.parametrize(
    ("n_trips", "max_rows", "bound"),
    [([7, 5], 0, 0), ([7, 5], 7, 0), ([7, 5], 6, 6), ([5, 7], 6, 6), ([70_000, 60_000], 10**6, 0)],
)
def test_only_what_some_split_has_more_of_is_a_bound(
    n_trips: list[int], max_rows: int, bound: int
) -> None:
    assert sample_size_for(n_trips, max_rows) == bound
