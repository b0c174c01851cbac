"""A matrix that is never whole: its batches are made anew whenever somebody reads them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .distances import sample_rows


class BatchedMatrix(ABC):
    """Rows of numbers, float32 [n, k], of which a batch at a time is in memory."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Count rows and columns."""

    @abstractmethod
    def batches(self) -> Iterator[np.ndarray]:
        """Make the rows in their order, [b, k] each."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Make the first rows, such as [:5]; no more of them than a batch has."""
        return next(self.batches())[rows]

    def whole(self) -> np.ndarray:
        """Make all rows, for whom memory does not matter."""
        matrix, first = np.empty(self.shape, np.float32), 0
        for batch in self.batches():
            matrix[first : first + len(batch)] = batch
            first += len(batch)
        return matrix


def batches_of(matrix: Any) -> Iterator[Any]:
    """Cut a matrix of any kind, [n, k], into what may be in memory at once."""
    return matrix.batches() if isinstance(matrix, BatchedMatrix) else iter([matrix])


def sample_matrix(matrix: Any, max_rows: int) -> np.ndarray:
    """Make all n rows of a dense matrix of any kind, [n, k], or so many drawn from all of them.

    The first ones are no sample: they are of a month's first night.
    """
    rows = sample_rows(matrix.shape[0], max_rows)
    taken, first = [], 0
    for batch in batches_of(matrix):
        last = first + len(batch)
        taken.append(batch[rows[(rows >= first) & (rows < last)] - first])
        first = last
    return np.concatenate(taken)


def join(batches: Iterable[np.ndarray], n_rows: int) -> Iterator[np.ndarray]:
    """Join batches, float32 [b, k] each, to larger ones of n_rows at most, which is no less than b.

    Each is used before the next is asked for, which is made in the same place.
    """
    joined, n_filled = np.empty((0, 0), np.float32), 0
    for batch in batches:
        if not joined.size:
            joined = np.empty((n_rows, batch.shape[1]), np.float32)
        if n_filled + len(batch) > len(joined):
            yield joined[:n_filled]
            n_filled = 0
        joined[n_filled : n_filled + len(batch)] = batch
        n_filled += len(batch)
    if n_filled:
        yield joined[:n_filled]


def whole(matrix: Any) -> Any:
    """Make a matrix of any kind whole, [n, k]."""
    return matrix.whole() if isinstance(matrix, BatchedMatrix) else matrix
