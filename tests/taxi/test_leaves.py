import json

import numpy as np
import pytest

from taxi.leaves import grow_leaves, restore_leaves

N = 2_000


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1, (N, 3))


def test_rows_of_unlike_targets_come_into_other_leaves(values: np.ndarray) -> None:
    high = (values[:, 1] > 0.5) & (values[:, 2] > 0.25)
    leaf = grow_leaves(values, high[:, None] * 10.0, min_rows=50).find(values)
    share = np.bincount(leaf, high) / np.bincount(leaf)
    assert np.abs(high - share[leaf]).mean() < 0.02  # a bin is a 64th wide


@pytest.mark.parametrize("min_rows", [1, 50, 999, N // 2])
def test_every_leaf_has_as_many_rows_as_it_must(min_rows: int, values: np.ndarray) -> None:
    leaves = grow_leaves(values, values[:, :1] ** 2, min_rows=min_rows)
    counts = np.bincount(leaves.find(values))
    assert counts.sum() == N
    assert len(counts) == len(leaves.column) + 1 >= 2
    assert counts.min() >= min_rows


@pytest.mark.parametrize("min_rows", [N // 2 + 1, N, 10 * N])
def test_too_few_rows_for_two_leaves_are_one(min_rows: int, values: np.ndarray) -> None:
    leaves = grow_leaves(values, values[:, :1], min_rows=min_rows)
    assert not leaves.find(values).any()
    assert len(leaves.find(values[:0])) == 0


def test_equal_targets_and_missing_values_are_no_reason_to_split(values: np.ndarray) -> None:
    assert len(grow_leaves(values, np.ones((N, 1)), min_rows=10).column) == 0
    missing = np.full((N, 1), np.nan)
    assert len(grow_leaves(missing, values[:, :1], min_rows=10).column) == 0


def test_leaves_survive_json_and_find_each_row_alone_as_among_others(values: np.ndarray) -> None:
    leaves = grow_leaves(values, values, min_rows=30)
    again = restore_leaves(json.loads(json.dumps(leaves.state())))
    found = leaves.find(values)
    assert np.array_equal(again.find(values), found)
    assert [again.find(values[row : row + 1])[0] for row in range(50)] == found[:50].tolist()
