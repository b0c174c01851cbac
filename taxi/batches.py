"""A matrix that is never whole in memory: its batches are made again on every read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .distances import sample_rows


class BatchedMatrix(ABC):
    """A matrix, float32 [n, k], with one batch of rows in memory at a time."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Count rows and columns."""

    @abstractmethod
    def batches(self) -> Iterator[np.ndarray]:
        """Make the rows in their order, [b, k] each."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Make the first rows, such as [:5]; at most those of the first batch."""
        return next(self.batches())[rows]

    def to_memory(self) -> np.ndarray:
        """Make all rows in memory, float32 [n, k]."""
        matrix, first = np.empty(self.shape, np.float32), 0
        for batch in self.batches():
            matrix[first : first + len(batch)] = batch
            first += len(batch)
        return matrix


def batches_of(matrix: Any) -> Iterator[Any]:
    """Return the batches of a matrix of any kind, [n, k]; one if it is whole."""
    return matrix.batches() if isinstance(matrix, BatchedMatrix) else iter([matrix])


def sample_matrix(matrix: Any, max_rows: int) -> np.ndarray:
    """Make a sample of max_rows rows of a dense matrix of any kind, [n, k], or all if n is less.

    The first rows would not do: they are of a month's first night.
    """
    rows = sample_rows(matrix.shape[0], max_rows)
    samples, first = [], 0
    for batch in batches_of(matrix):
        last = first + len(batch)
        samples.append(batch[rows[(rows >= first) & (rows < last)] - first])
        first = last
    return np.concatenate(samples)


def join_batches(batches: Iterable[np.ndarray], n_rows: int) -> Iterator[np.ndarray]:
    """Join batches, float32 [b, k] each, to larger ones of at most n_rows >= b rows.

    The batches share one buffer: use each before asking for the next.
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


def to_memory(matrix: Any) -> Any:
    """Return a matrix of any kind, [n, k], whole in memory."""
    return matrix.to_memory() if isinstance(matrix, BatchedMatrix) else matrix
