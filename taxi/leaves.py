"""A small regression tree that groups similar rows into leaves of many rows each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

N_BINS = 64  # of a column: a split lies between two of them


@dataclass(frozen=True)
class Leaves:
    """A grown tree of s splits, of which split 0 is the root, and s + 1 leaves, numbered from 0."""

    column: np.ndarray  # int [s]
    bound: np.ndarray  # float64 [s]; rows with a value up to this go below
    below: np.ndarray  # int [s], next split for rows below, or ~leaf
    above: np.ndarray  # int [s], the same for rows above

    def find(self, values: np.ndarray) -> np.ndarray:
        """Find the leaf of each row, int [n], by its values [n, k]; NaN goes above."""
        node = np.full(len(values), 0 if len(self.column) else ~0)
        while len(rows := np.flatnonzero(node >= 0)):
            split = node[rows]
            goes_below = values[rows, self.column[split]] <= self.bound[split]
            node[rows] = np.where(goes_below, self.below[split], self.above[split])
        return ~node

    def state(self) -> dict[str, list[float]]:
        """Return the splits as plain JSON values; `restore_leaves` rebuilds them."""
        return {name: values.tolist() for name, values in vars(self).items()}


def restore_leaves(state: Mapping[str, Any]) -> Leaves:
    """Rebuild a tree from its `state`."""
    return Leaves(
        column=np.array(state["column"], np.int64),
        bound=np.array(state["bound"], np.float64),
        below=np.array(state["below"], np.int64),
        above=np.array(state["above"], np.int64),
    )


def grow_leaves(values: np.ndarray, targets: np.ndarray, *, min_rows: int) -> Leaves:
    """Grow a tree that splits rows as long as this reduces the variance within leaves.

    Args:
        values: [n, k], the columns to split by.
        targets: [n, t], whose variance within leaves, summed over t, is minimised.
        min_rows: minimum number of rows in a leaf; fewer than twice as many are not split.
    Source: Breiman et al., Classification and regression trees, 1984; on binned columns.
    """
    return _Growth(values, targets, min_rows).grow()


class _Split(NamedTuple):
    column: int
    last_bin: int  # the last one that goes below
    gain: float


class _Growth:
    """The state of growing one tree."""

    def __init__(self, values: np.ndarray, targets: np.ndarray, min_rows: int) -> None:
        self.edges = [_edges(column) for column in values.T]
        self.bins = [np.searchsorted(e, v) for e, v in zip(self.edges, values.T, strict=True)]
        self.targets = targets
        self.min_rows = min_rows
        self.splits: list[tuple[int, float]] = []  # column and bound
        self.children: list[list[int]] = []  # below and above
        self.n_leaves = 0

    def grow(self) -> Leaves:
        self._grow(np.arange(len(self.targets)))
        column, bound = zip(*self.splits, strict=True) if self.splits else ((), ())
        below, above = zip(*self.children, strict=True) if self.children else ((), ())
        return restore_leaves({"column": column, "bound": bound, "below": below, "above": above})

    def _grow(self, rows: np.ndarray) -> int:
        """Split these rows recursively; return the number of the split, or ~leaf."""
        split = self._best_split(rows)
        if split is None:
            self.n_leaves += 1
            return ~(self.n_leaves - 1)
        node = len(self.splits)
        bound = float(self.edges[split.column][split.last_bin])
        self.splits.append((split.column, bound))
        self.children.append([0, 0])
        goes_below = self.bins[split.column][rows] <= split.last_bin
        self.children[node] = [self._grow(rows[goes_below]), self._grow(rows[~goes_below])]
        return node

    def _best_split(self, rows: np.ndarray) -> _Split | None:
        if len(rows) < 2 * self.min_rows:
            return None
        targets = [(target, float(target.sum())) for target in self.targets[rows].T]
        splits = [self._split_by(column, rows, targets) for column in range(len(self.edges))]
        best = max((s for s in splits if s), key=lambda s: s.gain, default=None)
        return best if best and best.gain > 0 else None

    def _split_by(
        self, column: int, rows: np.ndarray, targets: Sequence[tuple[np.ndarray, float]]
    ) -> _Split | None:
        """Find the best split by a column; None if none leaves enough rows on both sides.

        Args:
            column: index into the values.
            rows: [m] indices of the rows to split.
            targets: each target of these rows, [m], and its sum.
        """
        bins, n_bins = self.bins[column][rows], len(self.edges[column]) + 1
        n_below = np.bincount(bins, minlength=n_bins).cumsum()[:-1]
        n_above = len(rows) - n_below
        allowed = np.flatnonzero((n_below >= self.min_rows) & (n_above >= self.min_rows))
        if not len(allowed):
            return None
        gain = np.zeros(len(allowed))
        for target, total in targets:
            below = np.bincount(bins, target, n_bins).cumsum()[allowed]
            parts = below**2 / n_below[allowed] + (total - below) ** 2 / n_above[allowed]
            gain += parts - total**2 / len(rows)
        best = int(gain.argmax())
        return _Split(column, int(allowed[best]), float(gain[best]))


def _edges(values: np.ndarray) -> np.ndarray:
    """Choose the bounds between bins, ascending; a value equal to a bound lies below it."""
    return np.unique(np.quantile(values, np.linspace(0, 1, N_BINS + 1)[1:-1]))
